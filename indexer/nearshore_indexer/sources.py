"""Reads files of documents, one after another: tables and text, gzipped or not, and standard input."""

from __future__ import annotations

import enum
import gzip
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from nearshore_indexer.entries import (
    Elsewhere,
    Entry,
    Item,
    Place,
    Rejection,
    SourceError,
    SourceNotFoundError,
)
from nearshore_indexer.shards import WHOLE, Shard

STDIN = "-"


class Format(enum.StrEnum):
    """How a file is read."""

    AUTO = "auto"  # by its name; standard input by its first character
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    MARKDOWN = "markdown"
    TEXT = "text"


_SUFFIXES = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
    ".rst": Format.TEXT,
}
_OF_ONE_SHARD = {Format.MARKDOWN, Format.TEXT}  # a file's passages stay together


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read, checked as far as that is possible without reading it."""

    file: str  # as the caller named it; "-" is standard input
    format: Format
    size_bytes: int | None  # on disk; None where it is not known


class FormatReader(Protocol):
    """Reads streams of one format."""

    def read(self, stream: BinaryIO, file: str) -> Iterator[Item]:
        """Documents and rejected places in order; `file` names the stream. OSError and EOFError are the stream's."""


def check_sources(
    files: Sequence[str], file_format: Format, warn: Callable[[str], None] = lambda _: None
) -> list[Source]:
    """Look at every file before any is read, so that a slip in the last name costs nothing.

    A folder stands for the files below it, by name; where the format goes by the name, for those that it says one of.
    A file that is named twice, however its folder is spelt, is read once, as it was named first; a link is a file of
    its own. warn: told of folders without files beside others, and of named pipes. Raises SourceNotFoundError and
    SourceError (not readable, of a kind that is not known, no file at all).
    """
    sources: dict[str, Source] = {}  # by where the file lies
    empty = []
    for file in files:
        found = _below(file, file_format) if _is_folder(file) else [file]
        for each in found:
            source = _check(each, file_format)
            tell_named_pipe(each, warn)
            sources.setdefault(_whereabouts(each), source)
        if not found:
            known = f"Known are {' '.join(_SUFFIXES)}, also with .gz."
            empty.append(SourceError(f"No file below {file} says by its name what it is.", known))
    if empty and not sources:
        raise empty[0]
    for error in empty:
        warn(str(error))
    return list(sources.values())


def tell_named_pipe(file: str, warn: Callable[[str], None]) -> None:
    """Say of a named pipe that reading it waits for a writer, who may never come: one that a shell made has its own."""
    if file != STDIN and not file.startswith("/dev/") and Path(file).is_fifo():
        warn(f"{file} is a pipe: it is read as soon as a program writes into it, and waited for until then.")


class Reader:
    """Reads sources in order and knows how far it is."""

    def __init__(self, sources: Sequence[Source], formats: Mapping[Format, FormatReader], shard: Shard = WHOLE) -> None:
        """formats: who reads each format that the sources have; shard: what they give as this process's part."""
        self._sources = sources
        self._formats = formats
        self._shard = shard
        self._finished_bytes = 0
        self._raw: BinaryIO | None = None
        self._rest = 0.0  # see Entry

    @property
    def total_bytes(self) -> int | None:
        """Bytes on disk of all sources; None where one is not known."""
        sizes = [source.size_bytes for source in self._sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def read_bytes(self) -> int:
        """Bytes on disk of what was given so far; of a text that was read whole, its part."""
        return self._finished_bytes + (round(self._raw.tell() * (1 - self._rest)) if self._raw is not None else 0)

    def __iter__(self) -> Iterator[Entry | Rejection]:
        """Every document and every rejected place, in order; what is wrong with one file does not stop the next."""
        for source in self._sources:
            mine = self._shard.owns(source.file)
            if source.format in _OF_ONE_SHARD and not mine:
                self._finished_bytes += source.size_bytes or 0
                continue
            found = False
            for item in self._read(source):
                found = True
                if not isinstance(item, Elsewhere):
                    yield item
            if mine and not found:
                yield Rejection(Place(source.file), "the file holds no documents")

    def _read(self, source: Source) -> Iterator[Item]:
        """What a file holds; damage that every shard meets is told by the one that the file's name names."""
        line, problem, told = 0, "", self._shard.owns(source.file)
        try:
            with self._open(source) as stream:
                for item in self._items(source, stream):
                    line = item.place.line
                    self._rest = item.rest if isinstance(item, Entry) else self._rest
                    yield item
        except EOFError:
            problem = "the gzip data ends early"
        except (gzip.BadGzipFile, zlib.error) as error:
            problem = f"the gzip data is damaged ({error})"
        except OSError as error:
            problem = f"it cannot be read on: {error.strerror or error}"
            told = True  # the other shards may have read on: what is missing here, they do not know of
        if problem:
            place = Place(source.file)
            yield Rejection(place, f"{problem}; {_so_far(line)}") if told else Elsewhere(place)

    def _items(self, source: Source, stream: BinaryIO) -> Iterator[Item]:
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
            # Parquet is read here and there, and a pipe has no place to tell.
            self._raw = raw if source.format is not Format.PARQUET and source.size_bytes is not None else None
            try:
                if source.file.endswith(".gz"):
                    with gzip.open(raw) as unpacked:
                        yield cast("BinaryIO", unpacked)
                else:
                    yield raw
            finally:
                self._raw, self._rest = None, 0.0
                self._finished_bytes += source.size_bytes or 0


def _check(file: str, file_format: Format) -> Source:
    if file == STDIN:
        if file_format is Format.PARQUET:
            raise _parquet_from("standard input")
        return Source(file, file_format, None)
    path = Path(file)
    try:
        status = path.stat()
    except OSError as error:
        raise SourceNotFoundError(f"{file}: {error.strerror}.", "Check the name of the file.") from error
    if not os.access(path, os.R_OK):
        raise SourceError(f"{file} cannot be read by this user.", "Change its permissions.")
    found = _format(path) if file_format is Format.AUTO else file_format
    if found is Format.PARQUET and path.suffix == ".gz":
        raise SourceError(f"{file} is Parquet inside gzip.", "Unpack it: Parquet is compressed in itself.")
    regular = stat.S_ISREG(status.st_mode)
    if found is Format.PARQUET and not regular:
        raise _parquet_from(file)
    return Source(file, found, status.st_size if regular else None)


def _parquet_from(origin: str) -> SourceError:
    return SourceError(
        f"Parquet cannot be read from {origin}: it takes a regular file, whose end is read first.",
        "Write it to a file and name that; or send JSONL, which is read as it comes.",
    )


def _whereabouts(file: str) -> str:
    """One name for all the spellings of a file: ./a.txt, x/../a.txt and so on."""
    path = Path(file)
    return file if file == STDIN else str(path.parent.resolve() / path.name)


def _is_folder(file: str) -> bool:
    return file != STDIN and Path(file).is_dir()


def _below(folder: str, file_format: Format) -> list[str]:
    """The files below a folder that can be read, but for hidden ones."""
    found = []
    for path in sorted(Path(folder).rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and (file_format is not Format.AUTO or _suffix(path) in _SUFFIXES):
            found.append(str(path))
    return found


def _suffix(path: Path) -> str:
    """What the name says about the content: its suffix, or that before .gz."""
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return suffixes[-1].lower() if suffixes else ""


def _format(path: Path) -> Format:
    """The format that a name says. Raises SourceError where it says none."""
    found = _SUFFIXES.get(_suffix(path))
    if found is None:
        known = ", ".join(each for each in Format if each is not Format.AUTO)
        raise SourceError(f"{path}: the name does not say what is in it.", f"Say --format: {known}.")
    return found


def _so_far(line: int) -> str:
    return f"everything up to line {line:,} was taken" if line else "nothing was taken from it"
