"""Sees to it that a bundle is in the model folder, and is whole, and gives what is asked for."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nearshore.bundle import (
    INT8_FILE,
    TOKENIZER_FILE,
    Bundle,
    Manifest,
    ModelNotFoundError,
    Precision,
    file_digest,
    load_bundle,
    read_manifest,
)
from nearshore.cli import output
from nearshore.cli.session import session
from nearshore.embedding import Embedder
from nearshore.errors import FULL_DISK, CorruptionError, StorageFullError
from nearshore.export.aside import exclusive
from nearshore.export.checkpoint import read_checkpoint
from nearshore.export.errors import (
    CheckpointNotFoundError,
    ModelFolderReadOnlyError,
    OtherVectorsError,
    UnusableCheckpointError,
)
from nearshore.export.exporter import check_place, meaning, replace_bundle
from nearshore.export.obtain import Origin, obtain
from nearshore.export.options import ExportOptions
from nearshore.export.origin import read_source
from nearshore.export.sources import find_files
from nearshore.export.tokenizer import kept_case
from nearshore.records import F32

CHECKPOINTS = ".checkpoints"  # hidden: not a bundle
_DEFAULTS = ExportOptions()
_GOLDEN_RUN_TOKENS, _GOLDEN_QUEUED_TOKENS = 512, 1 << 20
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)  # EEXIST: a file is there
_UNTOLD = "--pooled, --all-layers, --mlm, --contract tfhub, --lower-case, --cased"
_OTHER_MODEL = (
    "If that was made of another checkpoint, or with --lower-case or --cased, get it so again; else index the "
    "documents of its collections into new ones."
)
_OTHER_RECIPE = (
    "Its products in 8 bits are made by another recipe. Index the documents of collections of int8 into new ones; "
    "those of fp32 stay as they are."
)


def ensure(
    name: str, source: str = "auto", *, force: bool = False, options: ExportOptions = _DEFAULTS
) -> tuple[Bundle, bool]:
    """The bundle of this name, and whether it had to be exported.

    source: as for --from; force: export although it is there; a bundle that lacks what options ask for is exported
    again, and so is any where options say how its vocabulary is used. What a bundle gave stays, asked for or not.
    Without force OtherVectorsError is raised for one whose vectors mean something else than those that a folder's
    export has. Files that are no bundle are never replaced. Of several callers at once, in whatever processes, one
    exports. Raises what obtain, exclusive and replace_bundle do, CheckpointNotFoundError,
    ModelFolderReadOnlyError and StorageFullError.
    """
    folder, origin = session().settings.model_dir / name, _origin(source)
    if not force and (found := _fitting(folder, options)) is not None:
        _check_source(found, origin, options)
        return found, False
    waiting = f"Waiting for another process that makes {name} ..."
    with _in_writable(folder), exclusive(folder, on_wait=lambda: output.note(waiting)):
        if not force and (found := _fitting(folder, options)) is not None:
            _check_source(found, origin, options)
            return found, False
        check_place(folder, origin if isinstance(origin, Path) else None)
        before = _described(folder)
        checkpoint = obtain(name, origin, folder.parent / CHECKPOINTS, report=output.note)
        kept = _kept(folder, before, checkpoint, options)
        meanings = {} if force or before is None else Bundle(folder, before).fingerprints
        output.note(f"Exporting {name} to {folder}")
        with _shedding(folder, _added(options, kept)):
            bundle = replace_bundle(
                checkpoint, folder, name=name, embed_golden=_embed_golden, options=kept, meanings=meanings
            )
    if before is not None:
        _tell_change(Bundle(folder, before), bundle)
    return bundle, True


@contextmanager
def _in_writable(bundle: Path) -> Iterator[None]:
    """Raise for what the system says of the model folder: ModelFolderReadOnlyError and StorageFullError.

    A bundle behind a link may lie in another folder, which counts as well.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise StorageFullError(f"making a bundle in {bundle.parent}", "the model folder") from error
        if error.filename is not None and error.errno in _NOT_WRITABLE:
            place = Path(str(error.filename)).resolve()
            for folder in (bundle.parent.resolve(), bundle.resolve().parent):
                if place.is_relative_to(folder) or folder.is_relative_to(place):
                    raise ModelFolderReadOnlyError(folder, error.strerror or str(error)) from error
        raise


def _fitting(folder: Path, options: ExportOptions) -> Bundle | None:
    """The bundle, if it is there and whole, and gives what is asked for; its files are read only where it may do."""
    try:
        return load_bundle(folder) if options.met_by(read_manifest(folder)) else None
    except (ModelNotFoundError, CorruptionError):
        return None


def _described(folder: Path) -> Manifest | None:
    """What the bundle that is there says it is; of a damaged one, with a warning, as long as it can be read."""
    try:
        return load_bundle(folder).manifest
    except ModelNotFoundError:
        return None
    except CorruptionError as error:
        output.warn(f"{error.message} It is exported again.")
    try:
        return read_manifest(folder)
    except CorruptionError:
        return None


def _kept(folder: Path, before: Manifest | None, checkpoint: Path, options: ExportOptions) -> ExportOptions:
    """What is asked for and what the bundle that is there was made with besides; says what is added and what not."""
    if before is not None:
        kept = options.with_those_of(before)
        if kept.lower_case is None:
            kept = replace(kept, lower_case=_kept_case(folder, before, checkpoint, kept))
    elif folder.exists():
        output.warn(f"What it was made with cannot be read: if that was one of {_UNTOLD}, run the command again so.")
        kept = replace(options, int8=options.int8 or (folder / INT8_FILE).exists())
    else:
        return options
    if flags := _added(options, kept):
        output.note(f"It keeps what it was made with: {' '.join(flags)}. Delete {folder} first to be rid of that.")
    return kept


def _added(options: ExportOptions, kept: ExportOptions) -> list[str]:
    """What is kept without being asked for."""
    asked = _flags(options)
    return [flag for flag, wanted in _flags(kept).items() if wanted and not asked[flag]]


@contextmanager
def _shedding(folder: Path, added: list[str]) -> Iterator[None]:
    """Let a refusal of what nobody asked for say why it was tried, and how to be rid of it."""
    try:
        yield
    except UnusableCheckpointError as error:
        shed = " ".join(flag for flag in added if flag in error.flags)
        if not shed:
            raise
        remedy = f"The bundle that is there was made with {shed}, which is kept: delete {folder} first to be rid of it."
        raise UnusableCheckpointError(error.folder, error.detail, remedy, flags=error.flags) from error


def _kept_case(folder: Path, before: Manifest, checkpoint: Path, kept: ExportOptions) -> bool | None:
    """How the bundle that is there uses the vocab.txt, as far as that had to be asked for; only of the same weights."""
    made, tokenizer = read_checkpoint(checkpoint, for_tfhub=kept.contract == "tfhub"), folder / TOKENIZER_FILE
    if not tokenizer.is_file() or file_digest(tokenizer) != before.files.get(TOKENIZER_FILE):
        return None
    case = kept_case(made, tokenizer)
    if case is None or read_source(checkpoint, made.files.weights).sha256 != before.source.sha256:
        return None  # the weights are read only where it matters
    return case


def _flags(options: ExportOptions) -> dict[str, bool]:
    return {
        "--pooled": options.pooled_output,
        "--all-layers": options.all_layers,
        "--mlm": options.mlm,
        "--contract tfhub": options.contract == "tfhub",
        "--int8": options.int8,
        "--lower-case": options.lower_case is True,
        "--cased": options.lower_case is False,
    }


def _tell_change(before: Bundle, now: Bundle) -> None:
    """Warn where vectors mean something else than those of the bundle that was there."""
    known, made = before.fingerprints, now.fingerprints
    changed = [precision for precision in made if known.get(precision, made[precision]) != made[precision]]
    if not changed:
        return
    told = " and ".join(f"in {each} ({known[each]} before, {made[each]} now)" for each in changed)
    output.warn(
        f"{now.manifest.name} gives other vectors than the bundle that was there {told}. "
        + (_OTHER_MODEL if Precision.FP32 in changed else _OTHER_RECIPE)
    )


def _check_source(found: Bundle, origin: Origin, options: ExportOptions) -> None:
    """Raise OtherVectorsError where the bundle that is there gives other vectors than one of a folder would."""
    if not isinstance(origin, Path):
        return
    before = found.manifest
    source, named = before.source, read_source(origin, find_files(origin).weights)
    if named.sha256 != source.sha256:
        made = f"of {source.kind} {source.location} (SHA-256 {source.sha256})"
        detail = f"it was made of other weights than those in {origin} (SHA-256 {named.sha256}): {made}"
        raise OtherVectorsError(found.path, detail)
    kept = options.with_those_of(before)
    kept = replace(kept, lower_case=_kept_case(found.path, before, origin, kept))
    if (made := meaning(origin, kept)) != before.fingerprint:
        made_of = "other files beside the same weights (tokenizer, pooling, prompts), or by a release that read them "
        detail = f"an export of {origin} would give other vectors (fingerprint {made}) than it does"
        raise OtherVectorsError(found.path, f"{detail} ({before.fingerprint}): it was made of {made_of}otherwise")


def _origin(source: str) -> Origin:
    """Raises CheckpointNotFoundError."""
    match source:
        case "auto" | "hub" | "pypi":
            return source
        case _:
            folder = Path(source)
            if not folder.exists():
                raise CheckpointNotFoundError(folder)
            return folder


def _embed_golden(bundle: Bundle, texts: list[str]) -> F32:
    run_tokens, queued_tokens = _GOLDEN_RUN_TOKENS, _GOLDEN_QUEUED_TOKENS
    with Embedder.open(bundle, max_run_tokens=run_tokens, max_queued_tokens=queued_tokens) as embedder:
        return embedder.embed(texts).vectors
