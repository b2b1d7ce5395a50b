"""Makes documents of what the readers of all formats find, with the checks that a server makes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nearshore.documents.errors import EmptyTextError
from nearshore.documents.limits import Limits
from nearshore.documents.requests import DocumentInput, RawValue, Timestamp
from nearshore.documents.validate import checked_documents
from nearshore.errors import InvalidArgumentError
from nearshore.records import Document
from nearshore_indexer.entries import Elsewhere, Entry, Item, Place, Rejection
from nearshore_indexer.shards import WHOLE, Shard

_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_DOUBLE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class RefusedError(Exception):
    """Why something is no document; readers turn it into a Rejection."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a record holds, as its format has it."""

    id: Any
    text: Any
    title: Any = None
    parent_id: Any = None
    metadata: Any = field(default_factory=dict)
    problem: str = ""  # why the record is no document, where its reader knows


class Builder:
    """Makes documents of records, and leaves those of other shards alone."""

    def __init__(
        self,
        limits: Limits,
        *,
        timestamp_keys: Collection[str] = (),
        number_keys: Collection[str] = (),
        shard: Shard = WHOLE,
    ) -> None:
        """limits: what a document may hold; ..._keys: metadata whose strings become timestamps (RFC 3339), numbers."""
        self._limits = limits
        self._timestamp_keys = frozenset(timestamp_keys)
        self._number_keys = frozenset(number_keys)
        self.shard = shard
        self.ignored_fields: Counter[str] = Counter()
        """Fields that no document has, and in how many records they were; filled by the readers."""

    def build(self, fields: Fields, place: Place, source: str = "") -> Item:
        """The document of a record, or why it is none; source: the record as it was, as far as it is text."""
        document_id = ""
        try:
            document_id = _string(fields.id, "id")
            if not self.shard.owns(document_id or str(place)):
                return Elsewhere(place)
            return Entry(self._document(fields, document_id), place)
        except RefusedError as refused:
            return self.reject(place, str(refused), document_id, source)

    def reject(self, place: Place, problem: str, document_id: str = "", source: str = "") -> Rejection | Elsewhere:
        """Something that is no document; one without an id is told by the shard that its place names."""
        if not document_id and not self.shard.owns(str(place)):
            return Elsewhere(place)
        return Rejection(place, problem, document_id, source)

    def _document(self, fields: Fields, document_id: str) -> Document:
        if fields.problem:
            raise RefusedError(fields.problem)
        text, title = _string(fields.text, "text"), _string(fields.title, "title")
        if title and not text.strip():
            text, title = title, ""  # what is embedded is the same: title and text are joined by a space
        parent_id, metadata = _string(fields.parent_id, "parent_id"), self._metadata(fields.metadata)
        return checked_document(DocumentInput(document_id, text, title, parent_id, metadata), self._limits)

    def _metadata(self, raw: Any) -> Mapping[str, RawValue]:
        if not raw and (raw is None or isinstance(raw, dict)):
            return {}
        if not isinstance(raw, dict):
            raise RefusedError(f"metadata is {kind(raw)}, not an object")
        return {key: self._value(key, value) for key, value in raw.items() if value is not None}

    def _value(self, key: str, value: Any) -> RawValue:
        if isinstance(value, dict):
            raise RefusedError(f"metadata[{key!r}] is an object; metadata is flat")
        if isinstance(value, list):
            return tuple(self._value(key, element) for element in value)
        if key in self._timestamp_keys and not isinstance(value, Timestamp):
            return _timestamp(key, value)
        if key in self._number_keys and isinstance(value, str):
            return _number(key, value)
        scalar: RawValue = value
        return scalar


def checked_document(sent: DocumentInput, limits: Limits) -> Document:
    """The document ready to be stored. Raises RefusedError with what a server would say."""
    try:
        return checked_documents([sent], limits, has_model=True)[0]
    except EmptyTextError as error:
        raise RefusedError("text is empty") from error  # which says all: its remedy is for callers
    except InvalidArgumentError as error:
        raise RefusedError(str(error).replace("documents[0].", "").rstrip(".")) from error
    except UnicodeEncodeError as error:
        raise RefusedError("it holds bytes that are not UTF-8, or half of a surrogate pair") from error


def kind(value: Any) -> str:
    """What a value is, in a person's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"of type {type(value).__name__}")


def _string(value: Any, name: str) -> str:
    """A string field, empty when absent or null; an id may be an integer."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and name in {"id", "parent_id"}:
        return str(value)
    raise RefusedError(f"{name} is {kind(value)}, not a string")


def _timestamp(key: str, value: Any) -> Timestamp:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise RefusedError(f"metadata[{key!r}] is not an RFC 3339 timestamp: {value!r:.60}") from error
    if moment.tzinfo is None:
        raise RefusedError(f"metadata[{key!r}] has no time zone: {value!r:.60}")
    since = moment - _EPOCH
    return Timestamp(since.days * 86_400 + since.seconds, moment.microsecond * 1_000)


def _number(key: str, value: str) -> int | float:
    """An integer where the text is one, else a double."""
    text = value.strip()
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DOUBLE.fullmatch(text):
        return float(text)
    raise RefusedError(f"metadata[{key!r}] is not a number: {value!r:.60}")
