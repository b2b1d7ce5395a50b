"""Client calls as requests and answers, once for both clients: what to send, and how to read what comes back.

Each function describes one call; the clients only carry it over their kind of channel. All raise TypeError or
ValueError for an argument that no request can hold.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nearshore.client import arguments, decode
from nearshore.client.arguments import (
    SPECIAL_TOKENS,
    TRUNCATIONS,
    choice,
    collection_name,
    instance,
    listed,
    message,
    model_name,
)
from nearshore.client.messages import (
    CollectionInfo,
    Deleted,
    Embedded,
    EmbedTruncation,
    Fetched,
    ModelInfo,
    Page,
    Parts,
    Query,
    Reranked,
    SearchResult,
    SpecialTokens,
    Tokenized,
    TokenizedText,
    Truncation,
    Upserted,
)
from nearshore.records import F32, Document, IndexKind, Metric
from nearshore.v1 import collection_service_pb2 as collections_pb
from nearshore.v1 import document_service_pb2 as documents_pb
from nearshore.v1 import embedding_service_pb2 as embedding_pb
from nearshore.v1 import search_service_pb2 as search_pb
from nearshore.v1 import values_pb2
from nearshore.wire import INDEX_KIND_NUMBERS, METRIC_NUMBERS, document

Answer = TypeVar("Answer")

ALL_BUT_VECTORS = Parts()
_SPECIAL_TOKENS = 2  # around a text, where a server from before prompts does not tell what is left


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One unary call."""

    method: str  # "EmbeddingService.Embed"
    request: Any  # the message of that method
    decode: Callable[[Any], Answer]
    collection: str = ""  # bare; the write tokens of which collection matter
    reads: bool = False  # it takes read_after
    repeatable: bool = True  # a second time changes nothing that the first has done
    forgets: bool = False  # afterwards, tokens of the collection's earlier life are worthless


def create_collection(
    name: str, model: str, dimensions: int, metric: Metric, index_kind: IndexKind
) -> Call[CollectionInfo]:
    """CollectionService.CreateCollection."""
    collection = message(
        "",
        collections_pb.Collection,
        model=model_name(model),
        dimensions=dimensions,
        metric=choice("metric", metric, METRIC_NUMBERS),
        index=collections_pb.IndexConfig(kind=choice("index_kind", index_kind, INDEX_KIND_NUMBERS)),
    )
    request = collections_pb.CreateCollectionRequest(collection=collection)
    request.collection_id = instance("name", name, str)
    method = "CollectionService.CreateCollection"
    return Call(
        method, request, lambda answer: decode.collection(answer.collection), name, repeatable=False, forgets=True
    )


def get_collection(name: str) -> Call[CollectionInfo]:
    """CollectionService.GetCollection."""
    request = message("", collections_pb.GetCollectionRequest, name=collection_name("name", name))
    return Call("CollectionService.GetCollection", request, lambda answer: decode.collection(answer.collection), name)


def list_collections(page_token: str) -> Call[tuple[list[CollectionInfo], str]]:
    """CollectionService.ListCollections: one page and the token of the next."""
    request = message("", collections_pb.ListCollectionsRequest, page_token=page_token)
    return Call("CollectionService.ListCollections", request, decode.collections)


def list_models(page_token: str) -> Call[tuple[list[ModelInfo], str]]:
    """EmbeddingService.ListModels: one page and the token of the next."""
    request = message("", embedding_pb.ListModelsRequest, page_token=page_token)
    return Call("EmbeddingService.ListModels", request, decode.models)


def unload_model(name: str) -> Call[bool]:
    """EmbeddingService.UnloadModel."""
    request = message("", embedding_pb.UnloadModelRequest, model=model_name(name))
    return Call("EmbeddingService.UnloadModel", request, lambda answer: bool(answer.unloaded))


def delete_collection(name: str) -> Call[None]:
    """CollectionService.DeleteCollection."""
    request = message("", collections_pb.DeleteCollectionRequest, name=collection_name("name", name))
    method = "CollectionService.DeleteCollection"
    return Call(method, request, lambda _: None, name, repeatable=False, forgets=True)


def upsert(
    collection: str,
    documents: Sequence[Document],
    vectors: values_pb2.Vectors | None,
    truncation: Truncation,
    request_id: str,
) -> Call[Upserted]:
    """DocumentService.UpsertDocuments; it always has a request_id. Raises InvalidMetadataError."""

    def read(answer: documents_pb.UpsertDocumentsResponse) -> Upserted:
        return Upserted(answer.write_token, tuple(answer.truncated_indexes), answer.embedded_count)

    request = message(
        "",
        documents_pb.UpsertDocumentsRequest,
        collection=collection_name("collection", collection),
        documents=arguments.documents(documents),
        vectors=vectors,
        truncation=choice("truncation", truncation, TRUNCATIONS),
        request_id=request_id or _new_request_id(),
    )
    return Call("DocumentService.UpsertDocuments", request, read, collection)


def get_documents(collection: str, ids: Sequence[str], parts: Parts) -> Call[Fetched]:
    """DocumentService.GetDocuments."""

    def read(answer: documents_pb.GetDocumentsResponse) -> Fetched:
        found = [document(each) for each in answer.documents]
        return Fetched(found, tuple(answer.missing_ids), decode.vectors(answer), decode.read_state(answer.read_state))

    request = message(
        "",
        documents_pb.GetDocumentsRequest,
        collection=collection_name("collection", collection),
        ids=listed("ids", ids, str, ordered=False),
        parts=arguments.parts("parts", parts),
    )
    return Call("DocumentService.GetDocuments", request, read, collection, reads=True)


def delete(collection: str, ids: Sequence[str], filter_: str, request_id: str) -> Call[Deleted]:
    """DocumentService.DeleteDocuments; by ids it always has a request_id, by filter it takes none."""

    def read(answer: documents_pb.DeleteDocumentsResponse) -> Deleted:
        return Deleted(answer.write_token, answer.deleted_count)

    ids = listed("ids", ids, str, ordered=False)
    request_id = request_id or (_new_request_id() if ids else "")
    request = message(
        "",
        documents_pb.DeleteDocumentsRequest,
        collection=collection_name("collection", collection),
        ids=ids,
        filter=filter_,
        request_id=request_id,
    )
    return Call("DocumentService.DeleteDocuments", request, read, collection, repeatable=bool(request_id))


def list_documents(collection: str, filter_: str, page_size: int, page_token: str, parts: Parts) -> Call[Page]:
    """DocumentService.ListDocuments."""

    def read(answer: documents_pb.ListDocumentsResponse) -> Page:
        found = [document(each) for each in answer.documents]
        return Page(found, answer.next_page_token, decode.vectors(answer), decode.read_state(answer.read_state))

    request = message(
        "",
        documents_pb.ListDocumentsRequest,
        collection=collection_name("collection", collection),
        filter=filter_,
        page_size=page_size,
        page_token=page_token,
        parts=arguments.parts("parts", parts),
    )
    return Call("DocumentService.ListDocuments", request, read, collection, reads=True)


def count(collection: str, filter_: str) -> Call[int]:
    """DocumentService.CountDocuments."""
    request = message(
        "", documents_pb.CountDocumentsRequest, collection=collection_name("collection", collection), filter=filter_
    )
    return Call("DocumentService.CountDocuments", request, lambda answer: int(answer.count), collection, reads=True)


def search(collection: str, query: Query | str) -> Call[SearchResult]:
    """SearchService.Search."""
    request = message("", search_pb.SearchRequest, collection=collection_name("collection", collection))
    request.MergeFrom(arguments.search("query", query))
    return Call("SearchService.Search", request, decode.search_result, collection, reads=True)


def batch_search(collection: str, queries: Sequence[Query | str]) -> Call[list[SearchResult]]:
    """SearchService.BatchSearch."""

    def read(answer: search_pb.BatchSearchResponse) -> list[SearchResult]:
        return [decode.search_result(each) for each in answer.results]

    searches = [
        arguments.search(f"queries[{index}]", each) for index, each in enumerate(listed("queries", queries, Query, str))
    ]
    request = message(
        "", search_pb.BatchSearchRequest, collection=collection_name("collection", collection), searches=searches
    )
    return Call("SearchService.BatchSearch", request, read, collection, reads=True)


def embed(  # noqa: PLR0913 -- each is a field of the request
    texts: Sequence[str],
    place: str = "",
    *,
    model: str,
    prompt: str | None,
    truncation: EmbedTruncation,
    special_tokens: SpecialTokens,
    dimensions: int,
    normalize: bool | None,
    token_vectors: bool,
) -> Call[Embedded]:
    """EmbeddingService.Embed; place: where in the call the texts stand, as for message()."""
    request = message(
        place,
        embedding_pb.EmbedRequest,
        model=model_name(model),
        texts=listed(f"{place}texts", texts, str),
        truncation=choice("truncation", truncation, TRUNCATIONS),
        special_tokens=choice("special_tokens", special_tokens, SPECIAL_TOKENS),
        prompt=prompt,
        dimensions=dimensions,
        normalize=normalize,
        token_vectors=token_vectors,
    )
    return Call("EmbeddingService.Embed", request, decode.embedded)


def rerank(
    query: str, texts: Sequence[str], *, model: str, limit: int | None, truncation: EmbedTruncation
) -> Call[Reranked]:
    """EmbeddingService.Rerank."""
    request = message(
        "",
        embedding_pb.RerankRequest,
        model=model_name(model),
        query=instance("query", query, str),
        texts=listed("texts", texts, str),
        limit=limit,
        truncation=choice("truncation", truncation, TRUNCATIONS),
    )
    return Call("EmbeddingService.Rerank", request, decode.reranked)


def tokenize(texts: Sequence[str], model: str, prompt: str | None, special_tokens: SpecialTokens) -> Call[Tokenized]:
    """EmbeddingService.Tokenize."""

    def read(answer: embedding_pb.TokenizeResponse) -> Tokenized:
        cut = [TokenizedText(tuple(each.ids), tuple(each.tokens)) for each in answer.texts]
        document_tokens = answer.max_document_tokens or answer.max_tokens - _SPECIAL_TOKENS
        return Tokenized(cut, answer.model.removeprefix("models/"), answer.max_tokens, document_tokens)

    request = message(
        "",
        embedding_pb.TokenizeRequest,
        model=model_name(model),
        texts=listed("texts", texts, str),
        special_tokens=choice("special_tokens", special_tokens, SPECIAL_TOKENS),
        prompt=prompt,
    )
    return Call("EmbeddingService.Tokenize", request, read)


def vectors_for(vectors: F32 | None, fingerprint: str) -> values_pb2.Vectors | None:
    """Vectors (rows, dimensions) with what they mean, or nothing. Raises TypeError, ValueError."""
    return arguments.vectors("vectors", vectors, fingerprint, ndim=2)


def _new_request_id() -> str:
    return uuid.uuid4().hex
