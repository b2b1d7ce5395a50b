"""Messages of nearshore.v1 as the requests of the layers below. Nothing is judged here but enum numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from nearshore.bundle import SpecialTokens
from nearshore.documents.requests import (
    CollectionInput,
    CountRequest,
    DeleteRequest,
    DocumentInput,
    GetRequest,
    ListCollectionsRequest,
    ListRequest,
    Parts,
    RawValue,
    Timestamp,
    UpsertRequest,
    Vectors,
)
from nearshore.embedding import Form, Truncation
from nearshore.errors import UnknownEnumError
from nearshore.records import IndexKind, Metric
from nearshore.search.requests import BatchSearchRequest, SearchRequest
from nearshore.v1 import (
    collection_service_pb2,
    document_service_pb2,
    embedding_service_pb2,
    search_service_pb2,
    values_pb2,
)
from nearshore.wire import INDEX_KINDS, METRICS

Known = TypeVar("Known")
Number = TypeVar("Number", bound=int)

TRUNCATIONS = {
    values_pb2.TRUNCATION_CUT_END: Truncation.CUT_END,
    values_pb2.TRUNCATION_CUT_START: Truncation.CUT_START,
    values_pb2.TRUNCATION_REFUSE: Truncation.REFUSE,
}
SPECIAL_TOKENS: dict[embedding_service_pb2.SpecialTokens.ValueType, SpecialTokens | None] = {
    embedding_service_pb2.SPECIAL_TOKENS_AS_TEXT: SpecialTokens.TEXT,
    embedding_service_pb2.SPECIAL_TOKENS_PARSE: SpecialTokens.PARSE,
}


def truncation(number: values_pb2.Truncation.ValueType) -> Truncation:
    """What to do with long text. Raises UnknownEnumError."""
    return _known("truncation", TRUNCATIONS, number, Truncation.CUT_END)


def special_tokens(number: embedding_service_pb2.SpecialTokens.ValueType) -> SpecialTokens | None:
    """How special tokens are read; None: as the bundle says. Raises UnknownEnumError."""
    return _known("special_tokens", SPECIAL_TOKENS, number, None)


def form(request: embedding_service_pb2.EmbedRequest) -> Form:
    """What is asked of the vectors. Raises UnknownEnumError."""
    return Form(
        special=special_tokens(request.special_tokens),
        dimensions=request.dimensions or None,
        normalize=request.normalize if request.HasField("normalize") else None,
    )


def prompt(request: embedding_service_pb2.EmbedRequest | embedding_service_pb2.TokenizeRequest) -> str | None:
    """The name of a prompt; None: the model's default."""
    return request.prompt if request.HasField("prompt") else None


def _known(field: str, names: Mapping[Number, Known], number: Number, default: Known) -> Known:
    if number == 0:
        return default
    if number not in names:
        raise UnknownEnumError(field, number)
    return names[number]


def texts(
    message: embedding_service_pb2.EmbedRequest
    | embedding_service_pb2.RerankRequest
    | embedding_service_pb2.TokenizeRequest,
) -> list[str]:
    """The texts that belong to no document."""
    return list(message.texts)


def collection_input(message: collection_service_pb2.CreateCollectionRequest) -> CollectionInput:
    """The collection to create. Raises UnknownEnumError."""
    wanted = message.collection
    return CollectionInput(
        collection_id=message.collection_id,
        model=wanted.model,
        fingerprint=wanted.fingerprint,
        dimensions=wanted.dimensions,
        metric=_known("metric", METRICS, wanted.metric, Metric.COSINE),
        index_kind=_known("index.kind", INDEX_KINDS, wanted.index.kind, IndexKind.AUTO),
    )


def list_collections_request(message: collection_service_pb2.ListCollectionsRequest) -> ListCollectionsRequest:
    """Which page of collections to list."""
    return ListCollectionsRequest(message.page_size, message.page_token)


def upsert_request(message: document_service_pb2.UpsertDocumentsRequest) -> UpsertRequest:
    """What to write. Raises UnknownEnumError."""
    return UpsertRequest(
        collection=message.collection,
        documents=[_document(each) for each in message.documents],
        vectors=_vectors(message.vectors) if message.HasField("vectors") else None,
        truncation=truncation(message.truncation),
        request_id=message.request_id,
    )


def get_request(message: document_service_pb2.GetDocumentsRequest) -> GetRequest:
    """What to read by id."""
    return GetRequest(message.collection, list(message.ids), _parts(message.parts), list(message.read_after))


def delete_request(message: document_service_pb2.DeleteDocumentsRequest) -> DeleteRequest:
    """What to delete."""
    return DeleteRequest(message.collection, list(message.ids), message.filter, message.request_id)


def list_request(message: document_service_pb2.ListDocumentsRequest) -> ListRequest:
    """Which page of documents to list."""
    return ListRequest(
        collection=message.collection,
        filter=message.filter,
        page_size=message.page_size,
        page_token=message.page_token,
        parts=_parts(message.parts),
        read_after=list(message.read_after),
    )


def count_request(message: document_service_pb2.CountDocumentsRequest) -> CountRequest:
    """What to count."""
    return CountRequest(message.collection, message.filter, list(message.read_after))


def search_request(message: search_service_pb2.SearchRequest) -> SearchRequest:
    """What to look for. Raises UnknownEnumError."""
    query = message.WhichOneof("query")
    return SearchRequest(
        collection=message.collection,
        text=message.text if query == "text" else None,
        vector=_vectors(message.vector) if query == "vector" else None,
        document_id=message.document_id if query == "document_id" else None,
        limit=message.limit if message.HasField("limit") else None,
        offset=message.offset,
        score_threshold=message.score_threshold if message.HasField("score_threshold") else None,
        filter=message.filter,
        exact=message.exact,
        ef_search=message.ef_search if message.HasField("ef_search") else None,
        parts=_parts(message.parts),
        read_after=list(message.read_after),
        truncation=truncation(message.truncation),
    )


def batch_search_request(message: search_service_pb2.BatchSearchRequest) -> BatchSearchRequest:
    """What to look for, several times. Raises UnknownEnumError."""
    searches = [search_request(each) for each in message.searches]
    return BatchSearchRequest(message.collection, searches, list(message.read_after))


def _parts(message: document_service_pb2.DocumentParts) -> Parts:
    return Parts(
        text=message.text if message.HasField("text") else True,
        metadata=message.metadata if message.HasField("metadata") else True,
        vector=message.vector,
    )


def _vectors(message: values_pb2.Vectors) -> Vectors:
    return Vectors(message.data, message.rows, message.dimensions, message.fingerprint)


def _document(message: document_service_pb2.Document) -> DocumentInput:
    metadata = {key: _raw_value(value) for key, value in message.metadata.items()}
    return DocumentInput(message.id, message.text, message.title, message.parent_id, metadata)


def _raw_value(message: values_pb2.Value) -> RawValue:  # noqa: PLR0911 -- one line a kind
    match message.WhichOneof("kind"):
        case "string_value":
            return message.string_value
        case "int64_value":
            return message.int64_value
        case "double_value":
            return message.double_value
        case "bool_value":
            return message.bool_value
        case "timestamp_value":
            return Timestamp(message.timestamp_value.seconds, message.timestamp_value.nanos)
        case "list_value":
            return tuple(_raw_value(value) for value in message.list_value.values)
        case _:
            return None
