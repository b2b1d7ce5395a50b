"""Local snapshots: a built collection on disk, so that a restart need not read and build everything again.

    <data>/snapshots/<collection id>/<position>-<generation>/
        rows.f32 columns.npz alive.npy index.json sealed.faiss      the index's own files
        payload.bin payload.npy ids.jsonl                           title, text, metadata; where each row's lies; ids
        manifest.json                                               last: without it the folder is no snapshot

A folder is written once. The two newest of a collection are kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from nearshore.errors import OUT_OF_HANDLES, CorruptionError
from nearshore.index import save
from nearshore.records import Collection
from nearshore.replica.view import ReplicaView
from nearshore.store.base import Cursor

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PAYLOAD, PLACES, IDS = "payload.bin", "payload.npy", "ids.jsonl"
NOT_OF_THE_FILE = frozenset({*OUT_OF_HANDLES, errno.ENOMEM})  # such an error says nothing about it
_KEPT = 2
_CHUNK_BYTES = 1 << 20
_IDS_A_LINE = 1_000


class SnapshotError(CorruptionError):
    """A snapshot that must not be used."""

    reason = "SNAPSHOT_REFUSED"

    def __init__(self, folder: Path, file: str, detail: str) -> None:
        """file: the one in `folder` that is wrong; detail: how."""
        super().__init__(
            f"Snapshot {folder}: {file}: {detail}.",
            "It is set aside; the next older one is used, else the index is rebuilt from the store. Nothing is lost.",
            folder=folder,
            file=file,
        )


class FileFacts(BaseModel):
    """One file of a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    blake2b: str


class Manifest(BaseModel):
    """What a snapshot holds and what it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    collection_id: int
    collection: str
    position: int
    tag: str  # hex
    commit_at: datetime
    model: str
    fingerprint: str
    dimensions: int
    metric: str
    index_kind: str
    generation: int
    rows: int
    live_rows: int
    files: dict[str, FileFacts]
    digest: str = ""  # of everything above

    def sealed(self) -> Manifest:
        """The same with its digest filled in."""
        body = self.model_copy(update={"digest": ""}).model_dump_json().encode()
        return self.model_copy(update={"digest": hashlib.blake2b(body, digest_size=32).hexdigest()})

    @property
    def cursor(self) -> Cursor:
        """Where in the feed the snapshot stands."""
        return Cursor(self.position, bytes.fromhex(self.tag))


def size_bytes(view: ReplicaView) -> int:
    """Roughly what a snapshot of this view takes on disk."""
    row_bytes = 4 * view.index.rows.shape[1] if view.index.n else 0
    return view.payload.size_bytes + view.index.n * (row_bytes + 64) + view.index.sealed_rows * (row_bytes // 4 + 272)


def write(view: ReplicaView, collection: Collection, root: Path) -> Path:
    """Write a snapshot of `view` under `root` and drop all but the two newest. Raises StorageFullError, OSError."""
    folder = root / f"{view.position:020d}-{view.index.generation:06d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        names = [*save(view.index, folder), *_write_payload(view, folder)]
        manifest = _manifest(view, collection, {name: _facts(folder / name) for name in names})
        _write_durably(folder / f"{MANIFEST}.new", manifest.model_dump_json(indent=1).encode())
        (folder / f"{MANIFEST}.new").rename(folder / MANIFEST)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _sync_folder(folder)
    _sync_folder(root)
    _drop_others(root, folder)
    return folder


def _drop_others(root: Path, newest: Path) -> None:
    """Keep `newest` and the one before it. What sorts behind it is of a history or an index that is gone."""
    older = [folder for folder in candidates(root) if folder < newest]
    for folder in set(candidates(root)) - {newest, *older[: _KEPT - 1]}:
        shutil.rmtree(folder, ignore_errors=True)


def _manifest(view: ReplicaView, collection: Collection, files: dict[str, FileFacts]) -> Manifest:
    if view.commit_at is None:
        raise ValueError("position 0 has no commit, so nothing proves which history a snapshot of it belongs to")
    spec = collection.spec
    return Manifest(
        format_version=FORMAT_VERSION,
        collection_id=collection.id,
        collection=spec.name,
        position=view.position,
        tag=view.tag.hex(),
        commit_at=view.commit_at,
        model=spec.model,
        fingerprint=spec.fingerprint,
        dimensions=spec.dimensions,
        metric=str(spec.metric),
        index_kind=str(spec.index_kind),
        generation=view.index.generation,
        rows=view.index.n,
        live_rows=view.index.live,
        files=files,
    ).sealed()


def _write_payload(view: ReplicaView, folder: Path) -> list[str]:
    rows, payload = view.index.n, view.payload
    with (folder / PAYLOAD).open("wb") as file:
        for at in range(0, payload.size_bytes, _CHUNK_BYTES):
            file.write(os.pread(payload.file.fd, min(_CHUNK_BYTES, payload.size_bytes - at), at))
        _sync(file.fileno())
    with (folder / PLACES).open("wb") as file:
        np.save(file, np.stack([payload.starts[:rows], payload.lengths[:rows]]))
        _sync(file.fileno())
    with (folder / IDS).open("w", encoding="utf-8") as file:
        file.writelines(_id_lines(view))
        _sync(file.fileno())
    return [PAYLOAD, PLACES, IDS]


def _id_lines(view: ReplicaView) -> Iterator[str]:
    """The ids by row, a thousand a line, so that no line keeps the interpreter from other threads for long."""
    for at in range(0, view.index.n, _IDS_A_LINE):
        yield json.dumps(list(view.row_ids[at : min(at + _IDS_A_LINE, view.index.n)]), ensure_ascii=False) + "\n"


def candidates(root: Path) -> list[Path]:
    """The finished snapshots under `root`, newest first."""
    found = [folder for folder in root.glob("*-*") if (folder / MANIFEST).is_file() and folder.suffix == ""]
    return sorted(found, reverse=True)


def read_manifest(folder: Path, collection: Collection) -> Manifest:
    """The manifest of a snapshot, if it is one of this collection that this version reads. Raises SnapshotError."""
    try:
        fields = json.loads((folder / MANIFEST).read_bytes())
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise SnapshotError(folder, MANIFEST, f"format version {version}, this program reads {FORMAT_VERSION}")
        manifest = Manifest.model_validate(fields)
    except OSError as error:
        raise _unreadable(folder, MANIFEST, error) from error
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise SnapshotError(folder, MANIFEST, f"cannot be read: {error}") from error
    if manifest.sealed().digest != manifest.digest:
        raise SnapshotError(folder, MANIFEST, "its digest does not fit: the file was changed or damaged")
    spec = collection.spec
    expected = (collection.id, spec.fingerprint, spec.dimensions, str(spec.metric), str(spec.index_kind))
    held = (manifest.collection_id, manifest.fingerprint, manifest.dimensions, manifest.metric, manifest.index_kind)
    if not {PAYLOAD, PLACES, IDS} <= manifest.files.keys():
        raise SnapshotError(folder, MANIFEST, "does not name the payload and the ids")
    if held != expected:
        raise SnapshotError(folder, MANIFEST, f"made for {held}, the collection is {expected}")
    return manifest


def copy_verified(folder: Path, manifest: Manifest, destination: Path) -> None:
    """Copy the files to `destination` while their digests are checked. Raises SnapshotError, OSError."""
    for name, facts in manifest.files.items():
        if Path(name).name != name:
            raise SnapshotError(folder, MANIFEST, f"names a file outside: {name!r}")
        try:
            source = (folder / name).open("rb")
        except OSError as error:
            raise _unreadable(folder, name, error) from error
        digest, size = hashlib.blake2b(digest_size=32), 0
        with source, (destination / name).open("wb") as copy:
            while chunk := _read(source, folder, name):
                digest.update(chunk)
                copy.write(chunk)
                size += len(chunk)
        if size != facts.size_bytes:
            raise SnapshotError(folder, name, f"{size} bytes, the manifest says {facts.size_bytes}")
        if digest.hexdigest() != facts.blake2b:
            raise SnapshotError(folder, name, "its digest is not the manifest's: the file was changed or damaged")


def _read(source: BinaryIO, folder: Path, name: str) -> bytes:
    try:
        return source.read(_CHUNK_BYTES)
    except OSError as error:
        raise _unreadable(folder, name, error) from error


def _unreadable(folder: Path, name: str, error: OSError) -> Exception:
    """What to raise when a snapshot's file cannot be read: the snapshot's fault, or want of something for a while."""
    return error if error.errno in NOT_OF_THE_FILE else SnapshotError(folder, name, f"cannot be read: {error.strerror}")


def set_aside(folder: Path) -> Path:
    """Rename a refused snapshot to *.refused for inspection; an earlier refused one goes."""
    for earlier in folder.parent.glob("*.refused"):
        shutil.rmtree(earlier, ignore_errors=True)
    return folder.rename(folder.with_suffix(".refused"))


def tidy(root: Path) -> None:
    """Remove what a killed process left unfinished under `root`."""
    for folder in root.glob("*-*"):
        if folder.suffix == "" and not (folder / MANIFEST).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def remove_strays(folder: Path, ids: set[int]) -> None:
    """Remove the snapshots under `folder` of all collections but `ids`: the others are gone."""
    for root in folder.glob("*"):
        if root.name.isdigit() and int(root.name) not in ids:
            shutil.rmtree(root, ignore_errors=True)


def _facts(path: Path) -> FileFacts:
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return FileFacts(size_bytes=path.stat().st_size, blake2b=digest.hexdigest())


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        _sync(file.fileno())


def _sync(fd: int) -> None:
    os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
