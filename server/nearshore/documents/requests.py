"""What callers ask of documents and collections, and what they get: nearshore.v1 as plain frozen dataclasses.

A request holds what came over the wire, not yet validated; resource names are whole ("collections/docs").
A field that is unset on the wire has the default given here. An answer is ready to be translated field by field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from nearshore.embedding import Truncation
from nearshore.records import F32, Document, IndexKind, Metric, ReadState


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A google.protobuf.Timestamp as sent: it can hold what a datetime cannot, which validation then refuses."""

    seconds: int
    nanos: int


RawValue = str | int | float | bool | Timestamp | None | tuple["RawValue", ...]
"""A metadata value as sent. None: a Value with no kind; a tuple: a list, at any depth."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """A row-major float32 matrix as it travels."""

    data: bytes  # little-endian; 4 * rows * dimensions bytes when valid
    rows: int
    dimensions: int
    fingerprint: str = ""  # what they mean; empty where no model made them

    @classmethod
    def from_array(cls, matrix: F32, fingerprint: str) -> Vectors:
        """Pack a (rows, dimensions) matrix."""
        rows, dimensions = matrix.shape
        return cls(np.ascontiguousarray(matrix, dtype="<f4").tobytes(), rows, dimensions, fingerprint)


@dataclass(frozen=True, slots=True)
class DocumentInput:
    """A document as sent."""

    id: str
    text: str = ""
    title: str = ""
    parent_id: str = ""
    metadata: Mapping[str, RawValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts of a document an answer carries besides id, title and parent_id."""

    text: bool = True
    metadata: bool = True
    vector: bool = False


DEFAULT_PARTS = Parts()


@dataclass(frozen=True, slots=True)
class UpsertRequest:
    """UpsertDocumentsRequest."""

    collection: str
    documents: Sequence[DocumentInput]
    vectors: Vectors | None = None
    truncation: Truncation = Truncation.CUT_END
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class UpsertAnswer:
    """UpsertDocumentsResponse."""

    write_token: str
    truncated_indexes: tuple[int, ...]  # of those embedded now
    embedded_count: int


@dataclass(frozen=True, slots=True)
class GetRequest:
    """GetDocumentsRequest."""

    collection: str
    ids: Sequence[str]
    parts: Parts = DEFAULT_PARTS
    read_after: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class GetAnswer:
    """GetDocumentsResponse; parts not asked for are empty."""

    documents: Sequence[Document]
    missing_ids: Sequence[str]
    vectors: Vectors | None  # None unless parts.vector
    read_state: ReadState


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """DeleteDocumentsRequest: either ids or filter."""

    collection: str
    ids: Sequence[str] = ()
    filter: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class DeleteAnswer:
    """DeleteDocumentsResponse."""

    write_token: str  # empty when a filter matched nothing
    deleted_count: int


@dataclass(frozen=True, slots=True)
class ListRequest:
    """ListDocumentsRequest; page_size 0 means the default."""

    collection: str
    filter: str = ""
    page_size: int = 0
    page_token: str = ""
    parts: Parts = DEFAULT_PARTS
    read_after: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """ListDocumentsResponse."""

    documents: Sequence[Document]
    next_page_token: str
    vectors: Vectors | None  # None unless parts.vector
    read_state: ReadState


@dataclass(frozen=True, slots=True)
class CountRequest:
    """CountDocumentsRequest."""

    collection: str
    filter: str = ""
    read_after: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CountAnswer:
    """CountDocumentsResponse."""

    count: int
    read_state: ReadState


@dataclass(frozen=True, slots=True)
class CollectionInput:
    """CreateCollectionRequest, without the output only fields."""

    collection_id: str  # bare
    model: str = ""  # "models/{model}" or empty
    fingerprint: str = ""  # empty, or what the model's must be
    dimensions: int = 0
    metric: Metric = Metric.COSINE
    index_kind: IndexKind = IndexKind.AUTO


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """What the answering replica holds of a collection."""

    read_state: ReadState
    document_count: int
    sealed_row_count: int
    tail_row_count: int
    dead_row_count: int
    index_generation: int
    building: bool


@dataclass(frozen=True, slots=True)
class CollectionDescription:
    """The Collection of an answer."""

    name: str  # "collections/{collection}"
    model: str  # "models/{model}" or empty
    fingerprint: str
    precision: str  # that its vectors were made in; empty where this server's model does not tell
    dimensions: int
    metric: Metric
    index_kind: IndexKind
    created_at: datetime
    status: CollectionStatus
    uid: int  # never used again


@dataclass(frozen=True, slots=True)
class ListCollectionsRequest:
    """ListCollectionsRequest; page_size 0 means the default."""

    page_size: int = 0
    page_token: str = ""


@dataclass(frozen=True, slots=True)
class ListCollectionsAnswer:
    """ListCollectionsResponse."""

    collections: Sequence[CollectionDescription]
    next_page_token: str
