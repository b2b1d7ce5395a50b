"""Answers of the layers below as messages of nearshore.v1."""

from __future__ import annotations

from collections.abc import Sequence

from nearshore.documents.models import ListModelsAnswer, ModelDescription
from nearshore.documents.requests import (
    CollectionDescription,
    CollectionStatus,
    GetAnswer,
    ListAnswer,
    Vectors,
)
from nearshore.documents.texts import EmbedAnswer, RerankAnswer, TokenizeAnswer
from nearshore.records import FewerReason, ReadState
from nearshore.search.requests import BatchSearchAnswer, SearchAnswer
from nearshore.v1 import (
    collection_service_pb2,
    document_service_pb2,
    embedding_service_pb2,
    search_service_pb2,
    values_pb2,
)
from nearshore.wire import (
    INDEX_KIND_NUMBERS,
    METRIC_NUMBERS,
    document_message,
    fill_document,
    timestamp,
    vectors_message,
)

FEWER_REASONS = {
    FewerReason.NONE: search_service_pb2.FEWER_REASON_NONE,
    FewerReason.COLLECTION: search_service_pb2.FEWER_REASON_COLLECTION,
    FewerReason.FILTER: search_service_pb2.FEWER_REASON_FILTER,
    FewerReason.SCORE_THRESHOLD: search_service_pb2.FEWER_REASON_SCORE_THRESHOLD,
}


def embed_message(answer: EmbedAnswer) -> embedding_service_pb2.EmbedResponse:
    """Vectors and how many tokens each text had, and what was asked for of those."""
    embeddings = answer.embeddings
    return embedding_service_pb2.EmbedResponse(
        vectors=vectors_message(embeddings.vectors, embeddings.fingerprint),
        usage=_usage(embeddings.tokens, embeddings.tokens_used),
        model=answer.model,
        token_vectors=[
            embedding_service_pb2.TokenVectors(ids=each.ids, vectors=vectors_message(each.vectors, each.fingerprint))
            for each in embeddings.token_vectors
        ],
    )


def list_models_message(page: ListModelsAnswer) -> embedding_service_pb2.ListModelsResponse:
    """Models and what they can be asked for."""
    return embedding_service_pb2.ListModelsResponse(
        models=[_model_message(each) for each in page.models], next_page_token=page.next_page_token
    )


def _model_message(model: ModelDescription) -> embedding_service_pb2.Model:
    bundle, manifest = model.bundle, model.bundle.manifest
    pairs = manifest.is_cross_encoder
    return embedding_service_pb2.Model(
        name=model.name,
        kind=embedding_service_pb2.MODEL_KIND_CROSS_ENCODER if pairs else embedding_service_pb2.MODEL_KIND_EMBEDDING,
        is_default=model.is_default,
        loaded=model.size_bytes is not None,
        fingerprint=bundle.fingerprint_for(manifest.special_tokens),
        precision=bundle.precision,
        dimensions=0 if pairs else manifest.dimensions,
        max_tokens=manifest.max_tokens,
        prompts=sorted(manifest.prompts),
        size_bytes=model.size_bytes or 0,
    )


def rerank_message(answer: RerankAnswer) -> embedding_service_pb2.RerankResponse:
    """Texts by their scores, and how many tokens each had with the query."""
    return embedding_service_pb2.RerankResponse(
        results=[
            embedding_service_pb2.RankedText(index=index, score=score, logit=logit)
            for index, score, logit in answer.results
        ],
        usage=_usage(answer.tokens, answer.tokens_used),
        model=answer.model,
    )


def _usage(tokens: Sequence[int], tokens_used: Sequence[int]) -> list[embedding_service_pb2.TextUsage]:
    return [
        embedding_service_pb2.TextUsage(tokens=count, tokens_used=used)
        for count, used in zip(tokens, tokens_used, strict=True)
    ]


def tokenize_message(answer: TokenizeAnswer) -> embedding_service_pb2.TokenizeResponse:
    """Tokens of each text."""
    return embedding_service_pb2.TokenizeResponse(
        texts=[
            embedding_service_pb2.TokenizedText(ids=ids, tokens=tokens)
            for ids, tokens in zip(answer.ids, answer.tokens, strict=True)
        ],
        model=answer.model,
        max_tokens=answer.max_tokens,
        max_document_tokens=answer.max_document_tokens,
    )


def read_state_message(state: ReadState) -> values_pb2.ReadState:
    """How far the replica had followed."""
    return values_pb2.ReadState(
        position=state.position,
        commit_time=timestamp(state.commit_at) if state.commit_at is not None else None,
        contact_age_s=state.contact_age_s,
        token=state.token,
        head=state.head,
        history_changed=state.history_changed,
    )


def collection_message(collection: CollectionDescription) -> collection_service_pb2.Collection:
    """A collection with what this replica holds of it."""
    return collection_service_pb2.Collection(
        name=collection.name,
        uid=collection.uid,
        model=collection.model,
        fingerprint=collection.fingerprint,
        precision=collection.precision,
        dimensions=collection.dimensions,
        metric=METRIC_NUMBERS[collection.metric],
        index=collection_service_pb2.IndexConfig(kind=INDEX_KIND_NUMBERS[collection.index_kind]),
        create_time=timestamp(collection.created_at),
        status=_status_message(collection.status),
    )


def _status_message(status: CollectionStatus) -> collection_service_pb2.CollectionStatus:
    return collection_service_pb2.CollectionStatus(
        read_state=read_state_message(status.read_state),
        document_count=status.document_count,
        sealed_row_count=status.sealed_row_count,
        tail_row_count=status.tail_row_count,
        dead_row_count=status.dead_row_count,
        index_generation=status.index_generation,
        building=status.building,
    )


def get_message(answer: GetAnswer) -> document_service_pb2.GetDocumentsResponse:
    """Documents read by id."""
    return document_service_pb2.GetDocumentsResponse(
        documents=[document_message(each) for each in answer.documents],
        missing_ids=answer.missing_ids,
        vectors=_vectors_message(answer.vectors),
        read_state=read_state_message(answer.read_state),
    )


def list_message(answer: ListAnswer) -> document_service_pb2.ListDocumentsResponse:
    """One page of documents."""
    return document_service_pb2.ListDocumentsResponse(
        documents=[document_message(each) for each in answer.documents],
        next_page_token=answer.next_page_token,
        vectors=_vectors_message(answer.vectors),
        read_state=read_state_message(answer.read_state),
    )


def search_message(answer: SearchAnswer) -> search_service_pb2.SearchResponse:
    """The hits of one query and how they were found."""
    message = search_service_pb2.SearchResponse(
        vectors=_vectors_message(answer.vectors),
        exact=answer.exact,
        rows_scanned=answer.rows_scanned,
        ef_search=answer.ef_search,
        fewer_reason=FEWER_REASONS[answer.fewer_reason],
        index_generation=answer.index_generation,
        read_state=read_state_message(answer.read_state),
        query_tokens=answer.query_tokens,
        query_tokens_used=answer.query_tokens_used,
        embedding_s=answer.embedding_s,
        index_s=answer.index_s,
    )
    for hit in answer.hits:
        added = message.hits.add(score=hit.score)
        fill_document(added.document, hit.document)
    return message


def batch_search_message(answer: BatchSearchAnswer) -> search_service_pb2.BatchSearchResponse:
    """The answers of several queries."""
    return search_service_pb2.BatchSearchResponse(results=[search_message(each) for each in answer.results])


def _vectors_message(vectors: Vectors | None) -> values_pb2.Vectors | None:
    if vectors is None:
        return None
    return values_pb2.Vectors(
        data=vectors.data, rows=vectors.rows, dimensions=vectors.dimensions, fingerprint=vectors.fingerprint
    )
