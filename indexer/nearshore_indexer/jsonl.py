"""Reads JSON lines: one object a line with id (or BEIR's _id), text, and optional title, parent_id and metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from nearshore_indexer.building import Builder, Fields, RefusedError, kind
from nearshore_indexer.columns import OTHER_ID, USUAL, Columns
from nearshore_indexer.entries import Elsewhere, Item, Place

MAX_LINE_BYTES = 16 << 20


class JsonLines:
    """Reads documents of one JSONL stream after another."""

    def __init__(self, builder: Builder, columns: Columns = USUAL) -> None:
        """builder: makes documents of objects; columns: the fields that hold their parts."""
        self._builder = builder
        self._columns = columns

    def read(self, stream: BinaryIO, file: str) -> Iterator[Item]:
        """Documents and rejected lines in order; blank lines are skipped. OSError and EOFError are the stream's."""
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = Place(file, number)
            if len(line) > MAX_LINE_BYTES:
                skip_line(stream, line)
                yield self._builder.reject(place, f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
            elif not line.isspace():
                yield self._item(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, place)

    def _item(self, line: bytes, place: Place) -> Item:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            return self._builder.reject(place, f"byte {error.start + 1} of the line is not UTF-8")
        try:
            record = read_object(text)
        except RefusedError as refused:
            return self._builder.reject(place, str(refused), source=text.rstrip("\r\n"))
        columns = self._columns
        fields = Fields(
            record.get(columns.id_among(record)),
            record.get(columns.text),
            record.get(columns.title),
            record.get(columns.parent_id),
            record.get("metadata"),
            self._problem(record),
        )
        item = self._builder.build(fields, place, text.rstrip("\r\n"))
        ignored = record.keys() - {*columns.names(), OTHER_ID, "metadata"}
        if ignored and not isinstance(item, Elsewhere):
            self._builder.ignored_fields.update(ignored)
        return item

    def _problem(self, record: dict[str, Any]) -> str:
        """Why an object is no document: it lacks the field of the id, or that of the text and has no title either."""
        columns = self._columns
        if columns.id_among(record) not in record:
            wanted, option = columns.id, "--id-column"
        elif columns.text not in record and not record.get(columns.title):
            wanted, option = columns.text, "--text-column"
        else:
            return ""
        there = ", ".join(islice(record, 12)) + (", ..." if len(record) > 12 else "")
        return f"there is no field {wanted!r:.80} (there are: {there:.300}); name it with {option}"


def skip_line(stream: BinaryIO, line: bytes) -> None:
    """Read past the rest of a line of which `line` has been read."""
    while line and not line.endswith(b"\n"):
        line = stream.readline(MAX_LINE_BYTES)


def read_object(text: str) -> dict[str, Any]:
    """One line. Raises RefusedError."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise RefusedError(f"not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise RefusedError(f"the line is {kind(record)}, not an object")
    return record
