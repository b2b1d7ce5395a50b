"""Reads CSV and its kin: a header that names the columns, then a document a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from nearshore_indexer.building import Builder, Fields, RefusedError
from nearshore_indexer.columns import Columns
from nearshore_indexer.entries import Item, Place

MAX_FIELD_CHARACTERS = 16 << 20
MAX_LINE_BYTES = 16 << 20
_DELIMITERS = ",;\t"  # the one that the header has most of


class Delimited:
    """Reads documents of one CSV stream after another."""

    def __init__(self, builder: Builder, columns: Columns) -> None:
        """builder: makes documents of rows; columns: where their parts are. The others are metadata, as strings."""
        self._builder = builder
        self._columns = columns

    def read(self, stream: BinaryIO, file: str) -> Iterator[Item]:
        """Documents and rejected rows in order; blank rows are skipped. OSError and EOFError are the stream's.

        A row's place is the line that it begins on. Nothing is read behind a header that cannot be used.
        """
        csv.field_size_limit(MAX_FIELD_CHARACTERS)
        lines = _Lines(stream)
        header = next(iter(lines), "")
        try:
            delimiter, names = _header(header, lines)
            columns = self._columns.resolved(names)
        except RefusedError as refused:
            yield self._builder.reject(Place(file), f"{refused}")
            return
        table, ignored = _Table(names, columns), columns.ignored(names)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            place = Place(file, lines.number + 1)
            try:
                row = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                yield self._builder.reject(place, f"not CSV: {error}")
                continue
            if row:
                self._builder.ignored_fields.update(ignored)
                yield self._item(table, row, place)
        if lines.too_long:
            problem = f"the line is longer than {MAX_LINE_BYTES >> 20} MiB; nothing behind it was read"
            yield self._builder.reject(Place(file, lines.number), problem)

    def _item(self, table: _Table, row: Sequence[str], place: Place) -> Item:
        if len(row) != len(table.names):
            problem = f"the row has {len(row)} fields, the header {len(table.names)}"
            return self._builder.reject(place, problem, source=_printable(row))
        return self._builder.build(table.fields(row), place, _printable(row))


class _Table:
    """Takes rows apart."""

    def __init__(self, names: Sequence[str], columns: Columns) -> None:
        self.names = names
        self._at = {name: names.index(name) for name in names}
        self._columns = columns
        self._metadata = [(name, self._at[name]) for name in columns.metadata(names)]

    def fields(self, row: Sequence[str]) -> Fields:
        """The parts of a document; an empty cell is no metadata."""
        metadata = {name: row[index] for name, index in self._metadata if row[index]}
        columns = self._columns
        return Fields(
            row[self._at[columns.id]],
            row[self._at[columns.text]],
            row[self._at[columns.title]] if columns.title else "",
            row[self._at[columns.parent_id]] if columns.parent_id else "",
            metadata,
        )


class _Lines:
    """Lines of bounded length as text; bytes that are not UTF-8 become halves of surrogate pairs."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0  # of the last line given
        self.too_long = False

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(MAX_LINE_BYTES + 1):
            self.number += 1
            if len(line) > MAX_LINE_BYTES:
                self.too_long = True
                return
            yield line.removeprefix(b"\xef\xbb\xbf" if self.number == 1 else b"").decode("utf-8", "surrogateescape")


def _header(line: str, lines: _Lines) -> tuple[str, list[str]]:
    """Delimiter and names of a header. Raises RefusedError."""
    if lines.too_long or "\0" in line or any("\udc80" <= character <= "\udcff" for character in line):
        raise RefusedError("the first line is no header of CSV in UTF-8")
    if not line.strip():
        raise RefusedError("the first line is empty; it has to name the columns")
    delimiter = max(_DELIMITERS, key=line.count)
    try:
        names = next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise RefusedError(f"the first line is no header of CSV: {error}") from error
    return delimiter, [name.strip() for name in names]


def _printable(row: Sequence[str]) -> str:
    """A row for writing it out again; what was not UTF-8 is escaped."""
    return ",".join(row).encode("utf-8", "backslashreplace").decode()[:MAX_LINE_BYTES]
