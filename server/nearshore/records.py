"""The words every layer shares: documents, collections, commits and write tokens. A leaf: imports nothing of ours."""

from __future__ import annotations

import base64
import binascii
import enum
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from nearshore.errors import InvalidWriteTokenError

F32 = npt.NDArray[np.float32]
Scalar = str | int | float | bool | datetime
"""A metadata scalar. datetime is aware, in UTC, with microseconds."""
MetadataValue = Scalar | tuple[Scalar, ...]
"""A scalar or a list of scalars of one type."""
Metadata = Mapping[str, MetadataValue]


class Metric(enum.StrEnum):
    """How closeness is measured. A score is always "more is closer"."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"  # the score is the negative distance


class IndexKind(enum.StrEnum):
    """Which index serves a collection; AUTO chooses by the number of rows."""

    AUTO = "auto"
    EXACT = "exact"
    HNSW = "hnsw"


class FewerReason(enum.StrEnum):
    """Why fewer hits came back than the limit; where several hold, the last."""

    NONE = "none"  # limit hits came back
    COLLECTION = "collection"  # the collection holds no more documents
    FILTER = "filter"  # no more documents match the filter
    SCORE_THRESHOLD = "score_threshold"  # no more documents reach the threshold


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a caller decides about a collection; immutable once created."""

    name: str  # the bare id, without "collections/"
    dimensions: int
    metric: Metric = Metric.COSINE
    index_kind: IndexKind = IndexKind.AUTO
    model: str = ""  # bare model name; empty: callers bring vectors
    fingerprint: str = ""  # the model's fingerprint; empty exactly when model is


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as the store knows it."""

    id: int  # never reused, so a token of a deleted namesake is recognised
    spec: CollectionSpec
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Document:
    """One passage, without its vector."""

    id: str
    text: str
    title: str = ""
    parent_id: str = ""
    metadata: Metadata = field(default_factory=dict)

    @property
    def embedded_text(self) -> str:
        """What the model sees: title and text, joined by one space, or the text alone."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Upsert:
    """Write this document with this vector, replacing what has its id."""

    document: Document
    vector: F32  # (dimensions,) already normalized where the metric is cosine
    content_hash: bytes  # of what the collection's model embedded; empty: the vector is not known to be the model's


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the document with this id, if there is one."""

    id: str
    unchanged_since: int | None = None  # only if its last commit is at or before this position


Change = Upsert | Delete


@dataclass(frozen=True, slots=True)
class Commit:
    """One durable write: a position in the history of one collection, and the tag that proves which history."""

    collection_id: int
    position: int
    tag: bytes  # 16 random bytes
    at: datetime

    @property
    def token(self) -> WriteToken:
        """The token a caller carries to read this write."""
        return WriteToken(self.collection_id, self.position, self.tag)


@dataclass(frozen=True, slots=True)
class WriteToken:
    """Names a commit to a reader: (collection id, position, tag)."""

    collection_id: int
    position: int
    tag: bytes

    _LAYOUT = struct.Struct(">Bqq16s")

    def encode(self) -> str:
        """The opaque text form, safe in URLs and headers."""
        raw = self._LAYOUT.pack(1, self.collection_id, self.position, self.tag)
        return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")

    @classmethod
    def decode(cls, text: str) -> WriteToken:
        """Read the text form. Raises InvalidWriteTokenError for anything that encode() did not make."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            version, collection_id, position, tag = cls._LAYOUT.unpack(raw)
        except (binascii.Error, struct.error, ValueError) as error:
            raise InvalidWriteTokenError(text) from error
        if version != 1 or collection_id < 1 or position < 1:
            raise InvalidWriteTokenError(text)
        return cls(collection_id, position, tag)


@dataclass(frozen=True, slots=True)
class ReadState:
    """How far the replica had followed the collection when it answered."""

    position: int
    commit_at: datetime | None  # None at position 0
    contact_age_s: float
    token: str  # send it as read_after to see at least this state; empty at position 0
    head: int  # the newest position of the store that the replica knows of
    history_changed: bool  # the store no longer has the history that the answer comes from


@dataclass(frozen=True, slots=True)
class Item:
    """The store's last word on one id: a document with its vector, or a tombstone."""

    id: str
    position: int  # of the commit that wrote it
    document: Document | None  # None: deleted
    vector: F32 | None  # (dimensions,); None when deleted or not asked for
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Outline:
    """What tells whether a document is the one stored: all but its text and title, which the hash stands for."""

    content_hash: bytes
    parent_id: str
    metadata: Metadata


def new_tag() -> bytes:
    """A tag for a new commit."""
    return uuid.uuid4().bytes


def metadata_size_bytes(metadata: Metadata) -> int:
    """Bytes of keys and values in UTF-8, 8 for a number, timestamp or truth value."""
    size = 0
    for key, value in metadata.items():
        size += len(key.encode())
        for scalar in value if isinstance(value, tuple) else (value,):
            size += len(scalar.encode()) if isinstance(scalar, str) else 8
    return size


def changes_size_bytes(changes: Sequence[Change]) -> int:
    """Roughly what these changes take in the store, for batching and for bounding queues."""
    size = 0
    for change in changes:
        size += 128 + len(change.id if isinstance(change, Delete) else change.document.id)
        if isinstance(change, Upsert):
            document = change.document
            size += 4 * len(change.vector) + len(document.text.encode()) + len(document.title.encode())
            size += metadata_size_bytes(document.metadata)
    return size
