"""Reads files of documents, one after another: JSON lines and plain text, gzipped or not, and standard input."""

from __future__ import annotations

import enum
import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from nearshore_indexer.entries import Entry, Place, Rejection, SourceError, SourceNotFoundError

STDIN = "-"


class Format(enum.StrEnum):
    """How a file is read."""

    AUTO = "auto"  # by its name; standard input by its first character
    JSONL = "jsonl"
    TEXT = "text"


_SUFFIXES = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
    ".md": Format.TEXT,
    ".markdown": Format.TEXT,
    ".rst": Format.TEXT,
}


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read, checked as far as that is possible without reading it."""

    file: str  # as the caller named it; "-" is standard input
    format: Format
    size_bytes: int | None  # on disk; None where it is not known


class FormatReader(Protocol):
    """Reads streams of one format."""

    def read(self, stream: BinaryIO, file: str) -> Iterator[Entry | Rejection]:
        """Documents and rejected places in order; `file` names the stream. OSError and EOFError are the stream's."""


def check_sources(files: Sequence[str], file_format: Format) -> list[Source]:
    """Look at every file before any is read, so that a slip in the last name costs nothing.

    Raises SourceNotFoundError and SourceError (a folder, not readable, of a kind that is not known).
    """
    return [_check(file, file_format) for file in files]


class Reader:
    """Reads sources in order and knows how far it is."""

    def __init__(self, sources: Sequence[Source], formats: Mapping[Format, FormatReader]) -> None:
        """formats: who reads each format that the sources have."""
        self._sources = sources
        self._formats = formats
        self._finished_bytes = 0
        self._raw: BinaryIO | None = None

    @property
    def total_bytes(self) -> int | None:
        """Bytes on disk of all sources; None where one is not known."""
        sizes = [source.size_bytes for source in self._sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def read_bytes(self) -> int:
        """Bytes on disk read so far."""
        return self._finished_bytes + (self._raw.tell() if self._raw is not None else 0)

    def __iter__(self) -> Iterator[Entry | Rejection]:
        """Every document and every rejected place, in order; what is wrong with one file does not stop the next."""
        for source in self._sources:
            found = False
            for item in self._read(source):
                found = True
                yield item
            if not found:
                yield Rejection(Place(source.file), "the file holds no documents")

    def _read(self, source: Source) -> Iterator[Entry | Rejection]:
        line = 0
        try:
            with self._open(source) as stream:
                for item in self._items(source, stream):
                    line = item.place.line
                    yield item
        except EOFError:
            yield Rejection(Place(source.file), f"the gzip data ends early; {_so_far(line)}")
        except (gzip.BadGzipFile, zlib.error) as error:
            yield Rejection(Place(source.file), f"the gzip data is damaged ({error}); {_so_far(line)}")
        except OSError as error:
            yield Rejection(Place(source.file), f"it cannot be read on: {error.strerror or error}; {_so_far(line)}")

    def _items(self, source: Source, stream: BinaryIO) -> Iterator[Entry | Rejection]:
        file_format = source.format
        if file_format is Format.AUTO:
            first = cast("bytes", stream.peek(64)).lstrip()[:1]  # type: ignore[attr-defined]
            file_format = Format.JSONL if first == b"{" else Format.TEXT
        return self._formats[file_format].read(stream, source.file)

    @contextmanager
    def _open(self, source: Source) -> Iterator[BinaryIO]:
        """The bytes of a source; _raw is what lies on disk, for counting."""
        if source.file == STDIN:
            # Not sys.stdin.buffer: a thread that waits in its read would hold its lock when the interpreter ends.
            with open(sys.stdin.fileno(), "rb", closefd=False) as stream:
                yield stream
            return
        with Path(source.file).open("rb") as raw:
            self._raw = raw
            try:
                if source.file.endswith(".gz"):
                    with gzip.open(raw) as unpacked:
                        yield cast("BinaryIO", unpacked)
                else:
                    yield raw
            finally:
                self._raw = None
                self._finished_bytes += source.size_bytes or 0


def _check(file: str, file_format: Format) -> Source:
    if file == STDIN:
        return Source(file, file_format, None)
    path = Path(file)
    try:
        status = path.stat()
    except OSError as error:
        raise SourceNotFoundError(f"{file}: {error.strerror}.", "Check the name of the file.") from error
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{file} is a folder.", f"Name the files in it, for example {path.as_posix()}/*.md")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{file} cannot be read by this user.", "Change its permissions.")
    if file_format is Format.AUTO:
        suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
        file_format = _SUFFIXES.get(suffixes[-1].lower() if suffixes else "", Format.AUTO)
        if file_format is Format.AUTO:
            raise SourceError(f"{file}: the name does not say what is in it.", "Say --format jsonl or --format text.")
    return Source(file, file_format, status.st_size if stat.S_ISREG(status.st_mode) else None)


def _so_far(line: int) -> str:
    return f"everything up to line {line:,} was taken" if line else "nothing was taken from it"
