"""What a client sends and what it gets, in plain Python: dataclasses, datetimes and numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from nearshore.errors import NearshoreError
from nearshore.records import F32, Document, FewerReason, IndexKind, Metric, ReadState

Truncation = Literal["cut_end", "refuse"]
"""What to do with a text longer than the model's maximum."""
EmbedTruncation = Literal["cut_end", "cut_start", "refuse"]
"""The same where a text belongs to no collection: its start may be cut too, behind the prompt."""
SpecialTokens = Literal["bundle", "text", "parse"]
"""How text that spells a special token is read: as the bundle says, as text, or as that token."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What documents carry besides id, title and parent_id."""

    text: bool = True
    metadata: bool = True
    vector: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """One search: exactly one of text, vector and document_id is given."""

    text: str | None = None
    vector: F32 | None = None  # (dimensions,)
    document_id: str | None = None
    fingerprint: str = ""  # required with a vector in a collection with a model
    limit: int | None = None  # None: the server's default, 10
    offset: int = 0
    score_threshold: float | None = None
    filter: str = ""
    exact: bool = False
    ef_search: int | None = None
    parts: Parts = Parts()
    truncation: Truncation = "cut_end"


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """What the replica that answered holds of a collection."""

    read_state: ReadState
    document_count: int
    sealed_row_count: int
    tail_row_count: int
    dead_row_count: int
    index_generation: int
    building: bool


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection as the server describes it; names are bare, without "collections/" and "models/"."""

    name: str
    uid: int  # never used again
    model: str
    fingerprint: str
    precision: str  # that its vectors were made in, fp32 or int8; empty: the server does not know
    dimensions: int
    metric: Metric
    index_kind: IndexKind
    created_at: datetime
    status: CollectionStatus


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of the server."""

    name: str
    is_cross_encoder: bool  # for rerank(); others are for all else
    is_default: bool  # what calls mean that name no model
    loaded: bool  # else the first call for it waits until it is
    fingerprint: str
    precision: str  # fp32 or int8
    dimensions: int  # 0 for a cross-encoder
    max_tokens: int
    prompts: Sequence[str]  # their names
    size_bytes: int  # of its files, where it is loaded; else 0


@dataclass(frozen=True, slots=True)
class Upserted:
    """What an upsert did."""

    write_token: str
    truncated_indexes: Sequence[int]  # documents that were embedded now and whose text was cut
    embedded_count: int  # 0 where the write had been made and only its answer was lost


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did."""

    write_token: str  # empty when a filter matched nothing
    deleted_count: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """Documents read by id, in request order."""

    documents: Sequence[Document]
    missing_ids: Sequence[str]
    vectors: F32 | None  # (len(documents), dimensions) where asked for
    read_state: ReadState


@dataclass(frozen=True, slots=True)
class Page:
    """One page of documents, in the order of their ids."""

    documents: Sequence[Document]
    next_page_token: str  # empty on the last page
    vectors: F32 | None  # (len(documents), dimensions) where asked for
    read_state: ReadState


@dataclass(frozen=True, slots=True)
class Hit:
    """One document that a search found; more score is closer."""

    document: Document
    score: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one query, closest hit first."""

    hits: Sequence[Hit]
    vectors: F32 | None  # (len(hits), dimensions) where asked for
    exact: bool
    rows_scanned: int
    ef_search: int
    fewer_reason: FewerReason
    index_generation: int
    read_state: ReadState
    query_tokens: int
    query_tokens_used: int
    embedding_s: float
    index_s: float


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """The tokens of one text that were embedded, and what the network gave for each, before pooling; not normalized."""

    ids: Sequence[int]  # special ones included
    vectors: F32  # (len(ids), hidden size)
    fingerprint: str  # what they mean; never that of vectors of texts


@dataclass(frozen=True, slots=True)
class Embedded:
    """Texts as vectors."""

    vectors: F32  # (len(texts), dimensions)
    tokens: Sequence[int]  # before truncation
    tokens_used: Sequence[int]
    fingerprint: str
    model: str
    token_vectors: Sequence[TokenVectors] = ()  # one a text, where asked for


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """What became of one batch of a stream: exactly one of `embedded` and `error` is there."""

    number: int  # of the batch among those given, from 0
    embedded: Embedded | None
    error: NearshoreError | None

    def result(self) -> Embedded:
        """The texts as vectors. Raises the error of the batch."""
        if self.error is not None:
            raise self.error
        assert self.embedded is not None
        return self.embedded


@dataclass(frozen=True, slots=True)
class RankedText:
    """A text, by its place among those that were sent, and how well it answers the query; more is better."""

    index: int
    score: float  # what the model makes of the logit
    logit: float  # what the network gave, by which texts are sorted


@dataclass(frozen=True, slots=True)
class Reranked:
    """Texts in the order in which they answer a query, best first."""

    results: Sequence[RankedText]
    tokens: Sequence[int]  # of the query with each text, in the order in which texts were sent, before truncation
    tokens_used: Sequence[int]
    model: str


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """All tokens of one text before truncation, special ones included."""

    ids: Sequence[int]
    tokens: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Texts as tokens."""

    texts: Sequence[TokenizedText]
    model: str
    max_tokens: int
    max_document_tokens: int  # of a document's title and text, without special tokens and prompt
