"""Checkpoint to bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from nearshore import __version__
from nearshore.bundle import (
    BUNDLE_FILES,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Bundle,
    CorruptBundleError,
    Manifest,
    Precision,
    SpecialTokens,
    file_digest,
    read_manifest,
    write_dense,
    write_golden,
    write_manifest,
)
from nearshore.export.adopted import AdoptedModel
from nearshore.export.aside import exclusive, replaced
from nearshore.export.checkpoint import Checkpoint, read_checkpoint
from nearshore.export.cross_encoder import check_pairing, read_classifier, score_golden
from nearshore.export.errors import OtherVectorsError, PlaceTakenError, UnusableCheckpointError
from nearshore.export.golden import GOLDEN_PAIRS, GOLDEN_TEXTS
from nearshore.export.graph.builder import Integers
from nearshore.export.graph.encoder import write_encoder
from nearshore.export.graph.outputs import Outputs
from nearshore.export.int8.conversion import convert
from nearshore.export.options import (
    ExportOptions,
    as_named,
    choose_outputs,
    count_classes,
    refuse_more_outputs,
    with_decoder_bias,
)
from nearshore.export.origin import read_source
from nearshore.export.tokenizer import read_tokenizer
from nearshore.export.weights import COMPLETE, Weights
from nearshore.records import F32

EmbedGolden = Callable[[Bundle, list[str]], F32]
"""Embeds texts with a bundle that has no golden vectors yet: (texts, dimensions), as the bundle says."""


def export_bundle(
    checkpoint: Path, destination: Path, *, name: str, embed_golden: EmbedGolden, options: ExportOptions | None = None
) -> Bundle:
    """Export a checkpoint folder to the bundle folder `destination`, replacing one that is there.

    The bundle appears whole or not at all. On one processor the same checkpoint gives the same bytes; golden.npz
    may differ in last digits between processors. Raises UnusableCheckpointError, PlaceTakenError.
    """
    with exclusive(destination):
        return replace_bundle(
            checkpoint, destination, name=name, embed_golden=embed_golden, options=options or ExportOptions()
        )


def replace_bundle(
    checkpoint: Path,
    destination: Path,
    *,
    name: str,
    embed_golden: EmbedGolden,
    options: ExportOptions,
    meanings: Mapping[Precision, str] = MappingProxyType({}),
) -> Bundle:
    """export_bundle for a caller in a block of exclusive(destination).

    meanings: the fingerprints that it must have in these precisions, as far as it has a graph of them, or else
    OtherVectorsError is raised and what is there stays. Raises PlaceTakenError as well.
    """
    check_place(destination, checkpoint)
    source = read_checkpoint(checkpoint, for_tfhub=options.contract == "tfhub")
    with replaced(destination) as folder:
        graph = _write_model(source, folder / MODEL_FILE, options)
        tokenizer = read_tokenizer(source, lower_case=options.lower_case)
        source.prompts.check_room(checkpoint, tokenizer.text, source.max_tokens)
        (folder / TOKENIZER_FILE).write_text(tokenizer.text, encoding="utf-8")
        if source.modules.dense:
            write_dense(folder, source.modules.dense)
        manifest = _describe(name, source, _with_new({}, folder), graph, tokenizer.sha256, options.special_tokens)
        if manifest.is_cross_encoder:
            check_pairing(source, tokenizer.text, graph.inputs)
        _check_meanings(destination, Bundle(folder, manifest), meanings)
        try:
            bundle = _with_golden(checkpoint, Bundle(folder, manifest), options, graph.build, embed_golden)
            _check_meanings(destination, bundle, meanings)
            write_manifest(folder, bundle.manifest)
            written = read_manifest(folder)
        except CorruptBundleError as error:  # the folder that it names is gone when this is read
            raise CorruptBundleError(destination, error.detail) from error
    return Bundle(destination, written)


def meaning(checkpoint: Path, options: ExportOptions) -> str:
    """The fingerprint in float32 of what export_bundle would make of a checkpoint folder; nothing is written.

    Raises UnusableCheckpointError.
    """
    source = read_checkpoint(checkpoint, for_tfhub=options.contract == "tfhub")
    graph = _Graph((), (), _labels(source), None)
    tokenizer = read_tokenizer(source, lower_case=options.lower_case)
    return _describe("any", source, {}, graph, tokenizer.sha256, options.special_tokens).fingerprint


def check_place(destination: Path, checkpoint: Path | None = None) -> None:
    """Refuse to replace what is no bundle: somebody's files lie there, perhaps the only weights.

    checkpoint: what the bundle is made of; it must not go either. Raises PlaceTakenError.
    """
    if checkpoint is not None and checkpoint.resolve().is_relative_to(destination.resolve()):
        raise PlaceTakenError(destination, f"the checkpoint {checkpoint} is there")
    if destination.exists() and not destination.is_dir():
        raise PlaceTakenError(destination, "it is a file")
    found = sorted(destination.iterdir()) if destination.is_dir() else []
    if found and not (destination / MANIFEST_FILE).exists():
        raise PlaceTakenError(destination, f"it has no {MANIFEST_FILE}, so it is no bundle")
    others = [path.name for path in found if path.name not in BUNDLE_FILES or not path.is_file()]
    if others:
        what = "not a regular file" if others[0] in BUNDLE_FILES else "no file of a bundle"
        raise PlaceTakenError(destination, f"{others[0]} in it is {what}")


def _check_meanings(destination: Path, bundle: Bundle, known: Mapping[Precision, str]) -> None:
    """Raises OtherVectorsError."""
    for precision, made in bundle.fingerprints.items():
        if known.get(precision, made) != made:
            detail = f"the export would give other vectors in {precision} (fingerprint {made}) than it does"
            raise OtherVectorsError(destination, f"{detail} ({known[precision]})", precision)


def _describe(
    name: str,
    source: Checkpoint,
    files: dict[str, str],
    graph: _Graph,
    tokenizer_sha256: str,
    special_tokens: SpecialTokens,
) -> Manifest:
    """The manifest of a bundle of these files so far."""
    modules, prompts = source.modules, source.prompts
    classifier = read_classifier(source, graph.labels)
    scores = classifier is not None and classifier.activation is not None
    return Manifest(
        name=name,
        architecture=source.configuration.family.architecture,
        network=source.configuration.network,
        dimensions=1 if scores else modules.dimensions,
        max_tokens=source.max_tokens,
        truncation_side="right",
        pooling=() if scores else modules.pooling,
        dense=tuple(layer.describe() for layer in modules.dense),
        normalize=modules.normalize,
        prompts=dict(prompts.texts),
        default_prompt=prompts.default,
        special_tokens=special_tokens,
        precision="fp32",
        recipe="none",
        tokenizer_sha256=tokenizer_sha256,
        source=read_source(source.folder, source.files.weights),
        license=source.license,
        inputs=graph.inputs,
        outputs=graph.outputs,
        exporter=f"nearshore {__version__}",
        files=files,
        classifier=classifier,
    )


def _with_new(known: Mapping[str, str], folder: Path) -> dict[str, str]:
    """These digests, and those of files that have been written since: each is read once, however large."""
    new = sorted(path for path in folder.iterdir() if path.name not in known)
    return {**known, **{path.name: file_digest(path) for path in new}}


_Build = Callable[[Path, Integers], None]  # writes the encoder again, with products in integers and without a mask


@dataclass(frozen=True, slots=True)
class _Graph:
    """A graph that was written."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: int  # of its logits; 0: it gives none
    build: _Build | None  # None: its layers are not known


def _write_model(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> _Graph:
    """Check all tensors and build, or check a model and take it."""
    folder, configuration, files = checkpoint.folder, checkpoint.configuration, checkpoint.files
    if files.model is not None:
        refuse_more_outputs(folder, options)
        adopted = AdoptedModel(folder, files.model, configuration)
        path.write_bytes(adopted.content)
        return _Graph(adopted.inputs, adopted.outputs, adopted.labels, None)
    assert files.open_store is not None
    weights = Weights(folder, files.open_store(configuration.family))
    configuration = with_decoder_bias(as_named(configuration, weights), weights)
    outputs, size_bytes = choose_outputs(replace(checkpoint, configuration=configuration), weights, options)
    beside = size_bytes > options.most_graph_bytes
    write_encoder(path, configuration, weights.read, outputs, beside=beside)
    inputs, network = outputs.input_names(configuration.network), configuration.network

    def build(path: Path, integers: Integers) -> None:
        unmasked = Outputs(contract=outputs.contract, masked=False)
        write_encoder(path, configuration, weights.read, unmasked, integers=integers, beside=beside)

    return _Graph(inputs, tuple(outputs.shapes(network)), outputs.classes, build)


def _labels(checkpoint: Checkpoint) -> int:
    """Of the logits that the graph of a checkpoint gives; 0: it gives none."""
    folder, configuration, files = checkpoint.folder, checkpoint.configuration, checkpoint.files
    if files.model is not None:
        return AdoptedModel(folder, files.model, configuration).labels
    assert files.open_store is not None
    return count_classes(configuration, Weights(folder, files.open_store(configuration.family)))


def _with_int8(
    checkpoint: Path, bundle: Bundle, options: ExportOptions, build: _Build | None, embed: EmbedGolden
) -> Bundle:
    if bundle.manifest.is_cross_encoder:
        raise UnusableCheckpointError(
            checkpoint,
            "it is a cross-encoder, of which there is no int8 graph",
            "Export it without --int8: it is served in float32 whatever embedding.precision says.",
            flags=("--int8",),
        )
    if build is None:
        raise UnusableCheckpointError(
            checkpoint,
            "it is another's ONNX model, whose layers are not known, and int8 needs them",
            "Export it without --int8, or export the checkpoint's own weights (model.safetensors).",
            flags=("--int8",),
        )
    int8 = convert(checkpoint, bundle, options.outputs().contract, build, embed)
    files = _with_new(bundle.manifest.files, bundle.path)
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"int8": int8, "files": files}))


def _with_golden(
    checkpoint: Path, bundle: Bundle, options: ExportOptions, build: _Build | None, embed: EmbedGolden
) -> Bundle:
    """The bundle with its golden vectors, and with a graph in 8 bits if one is asked for.

    Those in float32 come first: what is wrong with them is not the other graph's fault.
    """
    scores = bundle.manifest.is_cross_encoder
    texts: Sequence[str] | Sequence[tuple[str, str]] = GOLDEN_PAIRS if scores else GOLDEN_TEXTS
    fp32 = score_golden(checkpoint, bundle) if scores else _golden_vectors(checkpoint, bundle, embed)
    vectors = {Precision.FP32: fp32}
    if options.int8:
        bundle = _with_int8(checkpoint, bundle, options, build, embed)
        vectors[Precision.INT8] = _golden_vectors(checkpoint, bundle.at(Precision.INT8), embed)
    write_golden(bundle.path, texts, vectors)
    files = _with_new(bundle.manifest.files, bundle.path)
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))


def _golden_vectors(checkpoint: Path, bundle: Bundle, embed: EmbedGolden) -> F32:
    vectors = embed(bundle, list(GOLDEN_TEXTS)).astype(np.float32)
    expected = (len(GOLDEN_TEXTS), bundle.manifest.dimensions)
    if vectors.shape != expected:
        raise ValueError(f"embed_golden must give vectors of shape {expected}, not {vectors.shape}")
    if not np.isfinite(vectors).all():
        detail = "it gives vectors that are not finite: weights are damaged"
        raise UnusableCheckpointError(checkpoint, detail, COMPLETE)
    return vectors
