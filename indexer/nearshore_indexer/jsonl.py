"""Reads JSON lines: one object a line with id (or BEIR's _id), text, and optional title, parent_id and metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from nearshore_indexer.building import Builder, Fields, RefusedError, kind
from nearshore_indexer.entries import Elsewhere, Item, Place

MAX_LINE_BYTES = 16 << 20
FIELDS = frozenset(("id", "_id", "text", "title", "parent_id", "metadata"))


class JsonLines:
    """Reads documents of one JSONL stream after another."""

    def __init__(self, builder: Builder) -> None:
        """builder: makes documents of objects."""
        self._builder = builder

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
            record = _object(text)
        except RefusedError as refused:
            return self._builder.reject(place, str(refused), source=text.rstrip("\r\n"))
        found_id = record["id"] if "id" in record else record.get("_id")
        fields = Fields(
            found_id, record.get("text"), record.get("title"), record.get("parent_id"), record.get("metadata")
        )
        item = self._builder.build(fields, place, text.rstrip("\r\n"))
        if not (record.keys() <= FIELDS or isinstance(item, Elsewhere)):
            self._builder.ignored_fields.update(record.keys() - FIELDS)
        return item


def skip_line(stream: BinaryIO, line: bytes) -> None:
    """Read past the rest of a line of which `line` has been read."""
    while line and not line.endswith(b"\n"):
        line = stream.readline(MAX_LINE_BYTES)


def _object(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise RefusedError(f"not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise RefusedError(f"the line is {kind(record)}, not an object")
    return record
