"""Answers of the server as plain Python."""

from __future__ import annotations

from typing import Any

from nearshore.client.messages import (
    CollectionInfo,
    CollectionStatus,
    Embedded,
    Hit,
    ModelInfo,
    RankedText,
    Reranked,
    SearchResult,
    TokenVectors,
)
from nearshore.records import F32, FewerReason, ReadState
from nearshore.v1 import collection_service_pb2, embedding_service_pb2, search_service_pb2, values_pb2
from nearshore.wire import INDEX_KINDS, METRICS, document, moment, vectors_array

FEWER_REASONS = {
    search_service_pb2.FEWER_REASON_NONE: FewerReason.NONE,
    search_service_pb2.FEWER_REASON_COLLECTION: FewerReason.COLLECTION,
    search_service_pb2.FEWER_REASON_FILTER: FewerReason.FILTER,
    search_service_pb2.FEWER_REASON_SCORE_THRESHOLD: FewerReason.SCORE_THRESHOLD,
}


def vectors(answer: Any) -> F32 | None:
    """The vectors of an answer (rows, dimensions), where it has any."""
    return vectors_array(answer.vectors) if answer.HasField("vectors") else None


def embedded(answer: embedding_service_pb2.EmbedResponse) -> Embedded:
    """Texts as vectors."""
    return Embedded(
        vectors=vectors_array(answer.vectors),
        tokens=[each.tokens for each in answer.usage],
        tokens_used=[each.tokens_used for each in answer.usage],
        fingerprint=answer.vectors.fingerprint,
        model=answer.model.removeprefix("models/"),
        token_vectors=[token_vectors(each) for each in answer.token_vectors],
    )


def models(answer: embedding_service_pb2.ListModelsResponse) -> tuple[list[ModelInfo], str]:
    """A page of models, and the token of the next."""
    return [_model(each) for each in answer.models], answer.next_page_token


def _model(message: embedding_service_pb2.Model) -> ModelInfo:
    return ModelInfo(
        name=message.name.removeprefix("models/"),
        is_cross_encoder=message.kind == embedding_service_pb2.MODEL_KIND_CROSS_ENCODER,
        is_default=message.is_default,
        loaded=message.loaded,
        fingerprint=message.fingerprint,
        precision=message.precision,
        dimensions=message.dimensions,
        max_tokens=message.max_tokens,
        prompts=tuple(message.prompts),
        size_bytes=message.size_bytes,
    )


def reranked(answer: embedding_service_pb2.RerankResponse) -> Reranked:
    """Texts by their scores."""
    return Reranked(
        results=[RankedText(each.index, each.score, each.logit) for each in answer.results],
        tokens=[each.tokens for each in answer.usage],
        tokens_used=[each.tokens_used for each in answer.usage],
        model=answer.model.removeprefix("models/"),
    )


def token_vectors(message: embedding_service_pb2.TokenVectors) -> TokenVectors:
    """The tokens of one text and their vectors."""
    return TokenVectors(tuple(message.ids), vectors_array(message.vectors), message.vectors.fingerprint)


def read_state(message: values_pb2.ReadState) -> ReadState:
    """How far the replica had followed."""
    return ReadState(
        position=message.position,
        commit_at=moment(message.commit_time) if message.HasField("commit_time") else None,
        contact_age_s=message.contact_age_s,
        token=message.token,
        head=message.head,
        history_changed=message.history_changed,
    )


def collections(answer: collection_service_pb2.ListCollectionsResponse) -> tuple[list[CollectionInfo], str]:
    """A page of collections, and the token of the next."""
    return [collection(each) for each in answer.collections], answer.next_page_token


def collection(message: collection_service_pb2.Collection) -> CollectionInfo:
    """A collection and what the replica holds of it."""
    status = message.status
    return CollectionInfo(
        name=message.name.removeprefix("collections/"),
        uid=message.uid,
        model=message.model.removeprefix("models/"),
        fingerprint=message.fingerprint,
        precision=message.precision,
        dimensions=message.dimensions,
        metric=METRICS[message.metric],
        index_kind=INDEX_KINDS[message.index.kind],
        created_at=moment(message.create_time),
        status=CollectionStatus(
            read_state=read_state(status.read_state),
            document_count=status.document_count,
            sealed_row_count=status.sealed_row_count,
            tail_row_count=status.tail_row_count,
            dead_row_count=status.dead_row_count,
            index_generation=status.index_generation,
            building=status.building,
        ),
    )


def search_result(answer: search_service_pb2.SearchResponse) -> SearchResult:
    """The answer to one query."""
    return SearchResult(
        hits=[Hit(document(each.document), each.score) for each in answer.hits],
        vectors=vectors(answer),
        exact=answer.exact,
        rows_scanned=answer.rows_scanned,
        ef_search=answer.ef_search,
        fewer_reason=FEWER_REASONS[answer.fewer_reason],
        index_generation=answer.index_generation,
        read_state=read_state(answer.read_state),
        query_tokens=answer.query_tokens,
        query_tokens_used=answer.query_tokens_used,
        embedding_s=answer.embedding_s,
        index_s=answer.index_s,
    )
