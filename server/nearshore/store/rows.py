"""Documents as rows: what a caller's thread prepares before the writer's turn, and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from nearshore.errors import InvalidArgumentError, InvalidVectorsError
from nearshore.records import Change, Delete, Document, Item, Upsert, changes_size_bytes
from nearshore.store.base import Cursor
from nearshore.store.metadata import decode_metadata, encode_metadata

ANY_POSITION = (1 << 63) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

UpsertRow = tuple[str, bytes, str, str, str, str, bytes]
"""key, hash, parent_id, title, metadata, text, vector"""
DeleteRow = tuple[str, int]
"""key, the highest position at which it may still be deleted"""


@dataclass(frozen=True, slots=True)
class Rows:
    """The changes of one call, ready to be bound to statements. Their ids differ, so their order means nothing."""

    upserts: Sequence[UpsertRow]
    deletes: Sequence[DeleteRow]
    size_bytes: int

    def __len__(self) -> int:
        """How many rows the call writes."""
        return len(self.upserts) + len(self.deletes)


@dataclass(frozen=True, slots=True)
class Write:
    """One caller's write as the writer sees it."""

    collection_id: int
    rows: Rows
    request_id: str
    request_digest: bytes
    basis: Cursor | None = None  # what it was decided on


def encode_changes(changes: Sequence[Change], dimensions: int) -> Rows:
    """Turn changes into rows for a collection of vectors of `dimensions` components.

    Raises InvalidArgumentError for an id named twice, a NUL or lone surrogate, or a vector of another width.
    """
    keys = [change.document.id if isinstance(change, Upsert) else change.id for change in changes]
    if len(set(keys)) != len(keys):
        raise InvalidArgumentError("One write names a document id twice.", "Send each id once.")
    upserts = [_upsert_row(change, dimensions) for change in changes if isinstance(change, Upsert)]
    deletes = [_delete_row(change) for change in changes if isinstance(change, Delete)]
    return Rows(upserts, deletes, changes_size_bytes(changes))


def decode_item(row: Sequence[Any]) -> Item:
    """The item of a row: key, pos, deleted, hash, parent_id, title, metadata, text, vector."""
    key, position, deleted, content_hash, parent_id, title, metadata, text, vector = row
    if deleted:
        return Item(key, position, None, None, b"")
    document = Document(key, text, title, parent_id, decode_metadata(metadata))
    return Item(key, position, document, np.frombuffer(vector, dtype="<f4"), content_hash)


def prefix_end(prefix: str) -> str | None:
    """The least text, in the order of UTF-8, behind all that begin with prefix; None where nothing can be."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at])
        if code < sys.maxunicode:
            return prefix[:at] + chr(0xE000 if code == 0xD7FF else code + 1)  # no surrogates: UTF-8 has none
    return None


def to_microseconds(at: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(at_us: int) -> datetime:
    """The time in UTC that lies at_us microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=at_us)


def _upsert_row(upsert: Upsert, dimensions: int) -> UpsertRow:
    document = upsert.document
    if not document.id:
        raise InvalidArgumentError("A document has an empty id.", "Give it an id of 1 to 512 bytes.")
    if upsert.vector.shape != (dimensions,):
        raise InvalidVectorsError(
            f"The vector of {document.id!r} has the shape {upsert.vector.shape}, not ({dimensions},).",
            "Send vectors of the collection's width.",
        )
    metadata = encode_metadata(document.metadata)
    for text in (document.id, document.parent_id, document.title, document.text, metadata):
        check_text(text, f"of document {document.id!r}")
    return (
        document.id,
        upsert.content_hash,
        document.parent_id,
        document.title,
        metadata,
        document.text,
        np.ascontiguousarray(upsert.vector, dtype="<f4").tobytes(),
    )


def _delete_row(delete: Delete) -> DeleteRow:
    check_text(delete.id, f"of document {delete.id!r}")
    return delete.id, ANY_POSITION if delete.unchanged_since is None else delete.unchanged_since


def check_text(text: str, where: str) -> None:
    """Raise InvalidArgumentError for text that no store keeps; where: "of document 'a'".

    One bad text would fail at binding, and with it the whole group of callers: so it fails alone, here.
    """
    if "\0" in text:
        raise InvalidArgumentError(f"The text {where} holds a NUL character.", "Remove it: no store keeps NUL in text.")
    if not is_text(text):
        raise InvalidArgumentError(f"The text {where} holds a lone surrogate.", "Send valid Unicode.")


def is_text(text: str) -> bool:
    """Whether text is Unicode without NUL: what every store keeps."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
