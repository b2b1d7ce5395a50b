"""Reads JSON lines: one object a line with id (or BEIR's _id), text, and optional title, parent_id and metadata."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, BinaryIO

from nearshore.documents.limits import Limits
from nearshore.documents.requests import DocumentInput, RawValue, Timestamp
from nearshore.documents.validate import checked_documents
from nearshore.errors import InvalidArgumentError, InvalidMetadataError
from nearshore_indexer.entries import Entry, Place, Rejection

MAX_LINE_BYTES = 16 << 20
FIELDS = ("id", "_id", "text", "title", "parent_id", "metadata")


class JsonLines:
    """Reads documents of one JSONL stream after another."""

    def __init__(self, limits: Limits, *, timestamp_keys: Collection[str] = ()) -> None:
        """limits: what a document may hold; timestamp_keys: metadata whose RFC 3339 strings become timestamps."""
        self._limits = limits
        self._timestamp_keys = frozenset(timestamp_keys)
        self.ignored_fields: dict[str, int] = {}
        """Fields that documents do not have, and how many lines had them."""

    def read(self, stream: BinaryIO, file: str) -> Iterator[Entry | Rejection]:
        """Documents and rejected lines in order; blank lines are skipped. OSError and EOFError are the stream's."""
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = Place(file, number)
            if len(line) > MAX_LINE_BYTES:
                _skip_line(stream, line)
                yield Rejection(place, f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
            elif not line.isspace():
                yield self._entry(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, place)

    def _entry(self, line: bytes, place: Place) -> Entry | Rejection:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            return Rejection(place, f"byte {error.start + 1} of the line is not UTF-8")
        document_id = ""
        try:
            record = _object(text)
            document_id = _string(record, "_id" if "id" not in record else "id")
            return Entry(self._document(record, document_id), place)
        except _RefusedError as refused:
            return Rejection(place, str(refused), document_id, text.rstrip("\r\n"))

    def _document(self, record: Mapping[str, Any], document_id: str) -> Any:
        for name in record.keys() - set(FIELDS):
            self.ignored_fields[name] = self.ignored_fields.get(name, 0) + 1
        text, title = _string(record, "text"), _string(record, "title")
        if not text.strip() and title:
            text, title = title, ""  # what is embedded is the same: title and text are joined by a space
        sent = DocumentInput(
            id=document_id,
            text=text,
            title=title,
            parent_id=_string(record, "parent_id"),
            metadata=self._metadata(record.get("metadata")),
        )
        try:
            return checked_documents([sent], self._limits, has_model=True)[0]
        except InvalidArgumentError as error:
            hint = f" {error.remedy}" if isinstance(error, InvalidMetadataError) else ""
            raise _RefusedError((error.message.replace("documents[0].", "") + hint).rstrip(".")) from error
        except UnicodeEncodeError as error:
            raise _RefusedError("it holds half of a surrogate pair, which is not Unicode text") from error

    def _metadata(self, raw: Any) -> dict[str, RawValue]:
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            raise _RefusedError(f"metadata is {_kind(raw)}, not an object")
        values = ((key, self._value(key, value)) for key, value in raw.items() if value is not None)
        return dict(values)

    def _value(self, key: str, value: Any) -> RawValue:
        if isinstance(value, dict):
            raise _RefusedError(f"metadata[{key!r}] is an object; metadata is flat")
        if isinstance(value, list):
            return tuple(self._value(key, element) for element in value)
        if key in self._timestamp_keys:
            return _timestamp(key, value)
        scalar: RawValue = value
        return scalar


class _RefusedError(Exception):
    """Why a line is no document."""


def _object(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise _RefusedError(f"not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise _RefusedError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise _RefusedError(f"the line is {_kind(record)}, not an object")
    return record


def _string(record: Mapping[str, Any], name: str) -> str:
    """A string field, empty when absent or null; an id may be an integer."""
    value = record.get(name)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and name in {"id", "_id", "parent_id"}:
        return str(value)
    if not isinstance(value, str):
        raise _RefusedError(f"{name} is {_kind(value)}, not a string")
    return value


def _timestamp(key: str, value: Any) -> Timestamp:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _RefusedError(f"metadata[{key!r}] is not an RFC 3339 timestamp: {value!r:.60}") from error
    if moment.tzinfo is None:
        raise _RefusedError(f"metadata[{key!r}] has no time zone: {value!r:.60}")
    seconds = (moment - _EPOCH).days * 86_400 + (moment - _EPOCH).seconds
    return Timestamp(seconds, moment.microsecond * 1_000)


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _skip_line(stream: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(MAX_LINE_BYTES)
