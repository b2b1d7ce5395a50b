"""Answers validated queries from one view. Everything here reads files and computes: it runs beside the event loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nearshore.documents.errors import DocumentNotFoundError
from nearshore.documents.limits import Limits
from nearshore.documents.reading import answer_bytes, check_answer_bytes, may_overflow, read_state, with_parts
from nearshore.documents.requests import Vectors
from nearshore.documents.waiting import check_deadline
from nearshore.index.filters import Filter
from nearshore.records import F32, ReadState
from nearshore.replica import Replica, ReplicaView
from nearshore.search.queries import Query
from nearshore.search.ranking import Mask, Ranked, rank
from nearshore.search.requests import Hit, SearchAnswer


@dataclass(frozen=True, slots=True)
class QueryVector:
    """What a text query became."""

    vector: F32  # (dimensions,)
    tokens: int
    tokens_used: int
    embedding_s: float  # of the whole call


def answer_queries(
    replica: Replica,
    queries: Sequence[Query],
    embedded: Sequence[QueryVector | None],
    limits: Limits,
    deadline: float | None,
) -> Iterator[SearchAnswer]:
    """One answer a query, each computed when it is asked for, all from one view that is taken with the first.

    embedded: one entry a query, None unless it is text. Raises DocumentNotFoundError, AnswerTooLargeError and
    DeadlineError.
    """
    view, self_rows = _view_and_rows(replica, queries)
    state = read_state(replica, view)
    masks: dict[Filter, Mask | None] = {}
    dimensions, size = replica.collection.spec.dimensions, 0
    count_bytes = may_overflow(sum(query.limit for query in queries), dimensions, limits)
    for query, made, self_row in zip(queries, embedded, self_rows, strict=True):
        check_deadline(deadline, "the search was done")
        started = time.perf_counter()
        ranked = rank(view, query, _vector(view, query, made, self_row), _mask(view, query, masks), self_row)
        index_s = time.perf_counter() - started
        answer = _answer(view, state, query, made, ranked, index_s)
        if query.parts.vector:
            vectors = Vectors.from_array(view.vectors(ranked.rows), replica.collection.spec.fingerprint)
            answer = replace(answer, vectors=vectors)
        if count_bytes:
            size += sum(answer_bytes(hit.document, query.parts, dimensions) for hit in answer.hits)
            check_answer_bytes(size, limits)
        yield answer


def _answer(
    view: ReplicaView, state: ReadState, query: Query, made: QueryVector | None, ranked: Ranked, index_s: float
) -> SearchAnswer:
    """What was found, as much of it as the query asked for but vectors, and how it was found."""
    documents = (with_parts(document, query.parts) for document in view.documents(ranked.rows))
    return SearchAnswer(
        hits=[Hit(document, score) for document, score in zip(documents, ranked.scores, strict=True)],
        vectors=None,
        exact=ranked.found.exact,
        rows_scanned=ranked.found.scanned,
        ef_search=ranked.found.ef,
        fewer_reason=ranked.fewer_reason,
        index_generation=view.index.generation,
        read_state=state,
        query_tokens=made.tokens if made else 0,
        query_tokens_used=made.tokens_used if made else 0,
        embedding_s=made.embedding_s if made else 0.0,
        index_s=index_s,
    )


def _view_and_rows(replica: Replica, queries: Sequence[Query]) -> tuple[ReplicaView, list[int | None]]:
    """One view, and in it the row of each query's own document; None for queries that are not documents."""
    asked = [query for query in queries if query.document_id is not None]
    if not asked:
        return replica.view(), [None] * len(queries)
    view, rows = replica.lookup([query.document_id for query in asked if query.document_id is not None])
    for query, row in zip(asked, rows.tolist(), strict=True):
        if row < 0:
            raise DocumentNotFoundError(
                f"{query.field}document_id: there is no document {query.document_id!r:.100}.",
                "Upsert it first, or search by text or vector; after a write, send its write_token as read_after.",
                field=f"{query.field}document_id",
            )
    own = iter(rows.tolist())
    return view, [None if query.document_id is None else next(own) for query in queries]


def _vector(view: ReplicaView, query: Query, made: QueryVector | None, self_row: int | None) -> F32:
    if made is not None:
        return made.vector
    if query.vector is not None:
        return query.vector
    vectors = view.vectors(np.array([self_row], np.int64))
    vector: F32 = vectors[0]
    return vector


def _mask(view: ReplicaView, query: Query, masks: dict[Filter, Mask | None]) -> Mask | None:
    """The rows that the filter allows, computed once for all queries of a call with an equal filter."""
    if query.filter is None:
        return None
    if query.filter not in masks:
        masks[query.filter] = view.index.mask(query.filter)
    return masks[query.filter]
