"""The replica's own copy of what hits return: title, text, parent and metadata, one record a row, in one local file.

Append-only. A view holds a PayloadReader over the rows that existed when it was published; nothing it can see changes.
A record is JSON (a list of four), because the decoder of the standard library is C and needs no schema; what JSON
lacks is added: a timestamp is {"us": microseconds since 1970}, a list is a list.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nearshore.records import Document, Metadata, MetadataValue, Scalar

I64 = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BATCH_ROWS = 1_000


def _timestamp(value: object) -> dict[str, int]:
    if isinstance(value, datetime):
        return {"us": (value - _EPOCH) // _MICROSECOND}
    raise TypeError(f"metadata of type {type(value).__name__} has no stored form")


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_timestamp, check_circular=False)
_decoder = json.JSONDecoder()


def encode(document: Document) -> bytes:
    """The record of a document; its id is kept elsewhere."""
    fields = [document.title, document.text, document.parent_id, dict(document.metadata)]
    return _encoder.encode(fields).encode("utf-8")


def decode(document_id: str, record: bytes) -> Document:
    """The document of a record. Raises ValueError for bytes that encode() did not make."""
    title, text, parent_id, metadata = _decoder.decode(record.decode("utf-8"))
    return Document(document_id, text, title, parent_id, _metadata(metadata))


def _metadata(fields: dict[str, Any]) -> Metadata:
    return {key: _value(value) for key, value in fields.items()}


def _value(value: Any) -> MetadataValue:
    return tuple(_scalar(one) for one in value) if type(value) is list else _scalar(value)


def _scalar(value: Any) -> Scalar:
    scalar: Scalar = _EPOCH + value["us"] * _MICROSECOND if type(value) is dict else value
    return scalar


class OpenFile:
    """A file descriptor that lives as long as somebody reads through it, even after its name is gone."""

    def __init__(self, path: Path) -> None:
        """Create the file, or open it where it exists. Raises OSError."""
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self.fd)

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`. Raises OSError, for instance when the disk is full."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            view, offset = view[written:], offset + written


@dataclass(frozen=True, slots=True)
class PayloadReader:
    """The records of rows 0 to n - 1, for any thread, for as long as it is held."""

    file: OpenFile
    starts: I64  # (n,) bytes
    lengths: I64  # (n,) bytes
    size_bytes: int  # everything in the file that a row of this reader may point to

    def record(self, row: int) -> bytes:
        """The record of one row, dead or alive."""
        return os.pread(self.file.fd, int(self.lengths[row]), int(self.starts[row]))

    def documents(self, rows: Sequence[int] | I64, ids: Sequence[str]) -> list[Document]:
        """The documents of `rows`, whose ids the caller knows, in that order."""
        return [decode(one, self.record(row)) for one, row in zip(ids, np.asarray(rows).tolist(), strict=True)]


class Payload:
    """The writing side, used by one thread. Rows are numbered like those of the segment beside it."""

    def __init__(self, file: OpenFile, starts: I64 | None = None, lengths: I64 | None = None) -> None:
        """Write into a new file, or go on with one whose records lie at starts (n,) and lengths (n,)."""
        self._file = file
        self._starts = np.zeros(0, np.int64) if starts is None else starts
        self._lengths = np.zeros(0, np.int64) if lengths is None else lengths
        self._rows = len(self._starts)
        self._end = int((self._starts + self._lengths).max(initial=0))

    @property
    def rows(self) -> int:
        """Rows written, dead ones included."""
        return self._rows

    @property
    def size_bytes(self) -> int:
        """Everything written, records of dead rows included."""
        return self._end

    def append(self, documents: Sequence[Document]) -> None:
        """Write one row each. Raises OSError (disk full) and is then as before."""
        records = [encode(document) for document in documents]
        lengths = np.fromiter((len(record) for record in records), np.int64, len(records))
        self._file.write(b"".join(records), self._end)
        self._reserve(self._rows + len(records))
        new = slice(self._rows, self._rows + len(records))
        self._lengths[new] = lengths
        self._starts[new] = self._end + np.cumsum(lengths) - lengths
        self._rows += len(records)
        self._end += int(lengths.sum())

    def truncate(self, rows: int) -> None:
        """Forget all rows from number `rows` on; only rows that no reader has seen."""
        self._rows = rows
        self._end = int((self._starts[:rows] + self._lengths[:rows]).max(initial=0))

    def reader(self) -> PayloadReader:
        """A reader of the rows written so far."""
        return PayloadReader(self._file, self._starts[: self._rows], self._lengths[: self._rows], self._end)

    def discard(self) -> None:
        """Remove the file's name; readers keep what they hold."""
        self._file.path.unlink(missing_ok=True)

    def _reserve(self, rows: int) -> None:
        """Grow by doubling into new arrays: readers go on with the old ones."""
        if rows <= len(self._starts):
            return
        grown = np.zeros((2, max(1024, 2 * rows)), np.int64)
        grown[:, : self._rows] = self._starts[: self._rows], self._lengths[: self._rows]
        self._starts, self._lengths = grown[0], grown[1]

    def caught_up(self, compacted: Compacted) -> Compacted:
        """`compacted` with the records that were written since it was made. Raises OSError; can be repeated."""
        return _copied(self.reader(), np.arange(len(compacted.starts), self._rows), compacted)


@dataclass(frozen=True, slots=True)
class Compacted:
    """A new file without the dead records of an old one; rows are still numbered as in the old one."""

    file: OpenFile
    starts: I64  # (n,) 0 where dead
    lengths: I64  # (n,) 0 where dead
    size_bytes: int

    def renumbered(self, old_to_new: I64, rows: int) -> Payload:
        """The payload of a rebuilt segment of `rows` rows; old_to_new (n,) is -1 for the dead."""
        kept = np.flatnonzero(old_to_new >= 0)
        places = np.zeros((2, rows), np.int64)
        places[:, old_to_new[kept]] = self.starts[kept], self.lengths[kept]
        return Payload(self.file, places[0], places[1])


def compact(reader: PayloadReader, alive: npt.NDArray[np.bool_], path: Path) -> Compacted:
    """Copy the records of the rows that are alive (n,) into a new file at `path`. For the builder thread."""
    nothing = Compacted(OpenFile(path), np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
    return _copied(reader, np.flatnonzero(alive), nothing)


def _copied(reader: PayloadReader, rows: I64, target: Compacted) -> Compacted:
    """`target` with the records of `rows`, which it has not yet, behind its own."""
    places = np.zeros((2, len(reader.starts)), np.int64)
    places[:, : len(target.starts)] = target.starts, target.lengths
    end = target.size_bytes
    for at in range(0, len(rows), _BATCH_ROWS):
        batch = rows[at : at + _BATCH_ROWS]
        sizes = reader.lengths[batch]
        target.file.write(b"".join([reader.record(row) for row in batch.tolist()]), end)
        places[:, batch] = end + np.cumsum(sizes) - sizes, sizes
        end += int(sizes.sum())
    return Compacted(target.file, places[0], places[1], end)
