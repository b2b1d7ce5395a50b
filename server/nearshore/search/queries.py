"""A search as sent, into a query that is known to be answerable."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nearshore.documents.errors import (
    EfSearchError,
    FieldNotAllowedError,
    LimitError,
    QueryRequiredError,
    ScoreThresholdError,
)
from nearshore.documents.limits import DEFAULT_LIMIT, MAX_EF_SEARCH, Limits
from nearshore.documents.requests import Parts
from nearshore.documents.validate import check_id, check_query_text, check_truncation, parsed_filter
from nearshore.documents.vectors import sent_vectors
from nearshore.embedding import Truncation
from nearshore.index.filters import Filter
from nearshore.records import F32, CollectionSpec
from nearshore.search.requests import SearchRequest


@dataclass(frozen=True, slots=True)
class Query:
    """One validated search. Exactly one of text, vector and document_id is not None."""

    field: str  # where it stands in the request, as a prefix for messages: "" or "searches[3]."
    text: str | None
    vector: F32 | None  # (dimensions,) as the metric wants it
    document_id: str | None
    limit: int
    offset: int
    score_threshold: float | None
    filter: Filter | None
    exact: bool
    ef_search: int
    parts: Parts
    truncation: Truncation

    @property
    def window(self) -> int:
        """How many of the best hits have to be known."""
        return self.offset + self.limit


def checked_query(request: SearchRequest, field: str, spec: CollectionSpec, limits: Limits, ef_search: int) -> Query:
    """Validate one search; ef_search: the default. Raises the errors of validation, each naming the field."""
    if sum(each is not None for each in (request.text, request.vector, request.document_id)) != 1:
        raise QueryRequiredError(
            f"{field}query is missing.", "Set exactly one of text, vector and document_id.", field=f"{field}query"
        )
    if request.text is not None:
        check_query_text(request.text, f"{field}text", limits)
    if request.document_id is not None:
        check_id(request.document_id, f"{field}document_id")
    check_truncation(request.truncation, f"{field}truncation")
    limit = _checked_limit(request, field, limits)
    threshold = request.score_threshold
    if threshold is not None and math.isnan(threshold):
        raise ScoreThresholdError(
            f"{field}score_threshold is NaN.", "Send a number, or leave it out.", field=f"{field}score_threshold"
        )
    return Query(
        field=field,
        text=request.text,
        vector=sent_vectors(request.vector, spec, f"{field}vector", rows=1)[0] if request.vector else None,
        document_id=request.document_id,
        limit=limit,
        offset=request.offset,
        score_threshold=threshold,
        filter=parsed_filter(request.filter, limits),
        exact=request.exact,
        ef_search=_checked_ef_search(request, field, ef_search),
        parts=request.parts,
        truncation=request.truncation,
    )


def check_inner(request: SearchRequest, index: int, collection: str) -> None:
    """Refuse fields that only the batch as a whole can have. Raises FieldNotAllowedError."""
    if request.collection not in {"", collection}:
        raise FieldNotAllowedError(
            f"searches[{index}].collection is {request.collection[:100]!r}, the batch's is {collection[:100]!r}.",
            "A batch searches one collection: leave the inner one out.",
            field=f"searches[{index}].collection",
        )
    if request.read_after:
        raise FieldNotAllowedError(
            f"searches[{index}].read_after is set.",
            "Set read_after of the batch: it holds for all searches.",
            field=f"searches[{index}].read_after",
        )


def _checked_limit(request: SearchRequest, field: str, limits: Limits) -> int:
    limit = DEFAULT_LIMIT if request.limit is None else request.limit
    if not 1 <= limit <= limits.max_limit:
        raise LimitError(f"{field}limit is {limit:,}.", f"Ask for 1 to {limits.max_limit:,}.", field=f"{field}limit")
    if request.offset < 0 or request.offset + limit > limits.max_window:
        raise LimitError(
            f"{field}offset is {request.offset:,} with a limit of {limit:,}.",
            f"offset is at least 0 and offset + limit at most {limits.max_window:,}; narrow the search by a filter.",
            field=f"{field}offset",
        )
    return limit


def _checked_ef_search(request: SearchRequest, field: str, default: int) -> int:
    if request.ef_search is None:
        return default
    if not 1 <= request.ef_search <= MAX_EF_SEARCH:
        raise EfSearchError(
            f"{field}ef_search is {request.ef_search:,}.",
            f"Ask for 1 to {MAX_EF_SEARCH:,}, or set exact.",
            field=f"{field}ef_search",
        )
    return request.ef_search
