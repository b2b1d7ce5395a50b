"""What callers ask of a search and what they get: nearshore.v1's search messages as plain frozen dataclasses.

A request holds what came over the wire, not yet validated; a field unset on the wire has the default given here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nearshore.documents.requests import DEFAULT_PARTS, Parts, Vectors
from nearshore.embedding import Truncation
from nearshore.records import Document, FewerReason, ReadState


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """SearchRequest: exactly one of text, vector and document_id is not None."""

    collection: str
    text: str | None = None
    vector: Vectors | None = None
    document_id: str | None = None
    limit: int | None = None
    offset: int = 0
    score_threshold: float | None = None
    filter: str = ""
    exact: bool = False
    ef_search: int | None = None
    parts: Parts = DEFAULT_PARTS
    read_after: Sequence[str] = ()
    truncation: Truncation = Truncation.CUT_END


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found; parts not asked for are empty."""

    document: Document
    score: float


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """SearchResponse."""

    hits: Sequence[Hit]
    vectors: Vectors | None  # one row a hit; None unless parts.vector
    exact: bool
    rows_scanned: int
    ef_search: int
    fewer_reason: FewerReason
    index_generation: int
    read_state: ReadState
    query_tokens: int = 0
    query_tokens_used: int = 0
    embedding_s: float = 0.0
    index_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchSearchRequest:
    """BatchSearchRequest."""

    collection: str
    searches: Sequence[SearchRequest]
    read_after: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class BatchSearchAnswer:
    """BatchSearchResponse: one answer a search, all at one read_state."""

    results: Sequence[SearchAnswer]
