"""The four services of nearshore.v1: each method translates, awaits the layer below, translates back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from grpc import aio

from nearshore.documents.collections import Collections
from nearshore.documents.documents import Documents
from nearshore.documents.errors import FieldNotAllowedError
from nearshore.documents.models import Models
from nearshore.documents.texts import Texts
from nearshore.embedding import TokenClaim
from nearshore.search.searcher import Searcher
from nearshore.service import answers, translate
from nearshore.service.translator import Translator
from nearshore.v1 import collection_service_pb2 as collections_pb
from nearshore.v1 import collection_service_pb2_grpc as collections_grpc
from nearshore.v1 import document_service_pb2 as documents_pb
from nearshore.v1 import document_service_pb2_grpc as documents_grpc
from nearshore.v1 import embedding_service_pb2 as embedding_pb
from nearshore.v1 import embedding_service_pb2_grpc as embedding_grpc
from nearshore.v1 import search_service_pb2 as search_pb
from nearshore.v1 import search_service_pb2_grpc as search_grpc

Context = aio.ServicerContext[Any, Any]
NO_DEADLINE_S = 1e8  # gRPC says "no deadline" by one some centuries away
ANSWER_MARGIN_S = 0.2  # for hundreds of calls that end together, or where that is less:
ANSWER_SHARE = 0.1  # of the time left
FINGERPRINT_ITEMS = 16  # of an answer, whose making takes as long as that of a fingerprint


def deadline_of(context: Context) -> float | None:
    """When a call has to be answered, in time.monotonic() seconds; None for no deadline.

    That is before the caller's own deadline, for at that its gRPC gives up: so the answer says why, and still arrives.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None or remaining_s > NO_DEADLINE_S:
        return None
    return time.monotonic() + remaining_s - min(ANSWER_MARGIN_S, ANSWER_SHARE * remaining_s)


class EmbeddingServicer(embedding_grpc.EmbeddingServiceServicer):
    """EmbeddingService."""

    def __init__(self, texts: Texts, models: Models, translator: Translator) -> None:
        """Answer from these."""
        self._texts = texts
        self._models = models
        self._translator = translator

    async def Embed(  # noqa: N802 -- named by the proto
        self, request: embedding_pb.EmbedRequest, context: Context
    ) -> embedding_pb.EmbedResponse:
        """Turn texts into vectors."""
        return await self._embed(request, context, bulk=False)

    async def EmbedStream(  # type: ignore[override]  # noqa: N802 -- GuardedServer has one of the stream's requests answered
        self, request: embedding_pb.EmbedStreamRequest, context: Context
    ) -> embedding_pb.EmbedStreamResponse:
        """Turn one batch of texts into vectors."""
        if request.batch.token_vectors:
            raise FieldNotAllowedError(
                "batch.token_vectors has no meaning in a stream.",
                "Use Embed for vectors of tokens.",
                field="batch.token_vectors",
            )
        answer = await self._embed(request.batch, context, bulk=True)
        return embedding_pb.EmbedStreamResponse(id=request.id, answer=answer)

    async def _embed(
        self, request: embedding_pb.EmbedRequest, context: Context, *, bulk: bool
    ) -> embedding_pb.EmbedResponse:
        claim = self._token_claim(context) if request.token_vectors else None
        texts = await self._translator.read(translate.texts, request)
        answer = await self._texts.embed(
            texts,
            model=request.model,
            prompt=translate.prompt(request),
            truncation=translate.truncation(request.truncation),
            form=translate.form(request),
            token_claim=claim,
            bulk=bulk,
            deadline=deadline_of(context),
        )
        tokens = sum(answer.embeddings.tokens_used) if request.token_vectors else 0
        message = await self._translator.build(answers.embed_message, answer, items=len(texts) + tokens)
        if claim is not None:
            asyncio.get_running_loop().call_later(self._texts.max_unread_s, claim.free)
        return message

    def _token_claim(self, context: Context) -> TokenClaim:
        """Room that a call has until gRPC has sent its answer: who reads slowly keeps it, but not for ever."""
        claim = self._texts.token_claim()

        def free(_: object) -> None:
            claim.free()

        done: Any = free  # the stubs name a class that no function is an instance of
        context.add_done_callback(done)
        return claim

    async def Rerank(  # noqa: N802
        self, request: embedding_pb.RerankRequest, context: Context
    ) -> embedding_pb.RerankResponse:
        """Score texts against a query."""
        texts = await self._translator.read(translate.texts, request)
        answer = await self._texts.rerank(
            request.query,
            texts,
            model=request.model,
            limit=request.limit if request.HasField("limit") else None,
            truncation=translate.truncation(request.truncation),
            deadline=deadline_of(context),
        )
        return await self._translator.build(answers.rerank_message, answer, items=len(texts) + len(answer.results))

    async def Tokenize(  # noqa: N802
        self, request: embedding_pb.TokenizeRequest, context: Context
    ) -> embedding_pb.TokenizeResponse:
        """Show how texts are cut into tokens."""
        texts = await self._translator.read(translate.texts, request)
        special = translate.special_tokens(request.special_tokens)
        prompt = translate.prompt(request)
        answer = await self._texts.tokenize(
            texts, model=request.model, prompt=prompt, special=special, deadline=deadline_of(context)
        )
        return await self._translator.build(answers.tokenize_message, answer, items=sum(map(len, answer.ids)))

    async def ListModels(  # noqa: N802
        self, request: embedding_pb.ListModelsRequest, context: Context
    ) -> embedding_pb.ListModelsResponse:
        """List models in the order of their names."""
        page = await self._models.page(request.page_size, request.page_token, deadline_of(context))
        return await self._translator.build(
            answers.list_models_message, page, items=FINGERPRINT_ITEMS * len(page.models)
        )

    async def UnloadModel(  # noqa: N802
        self, request: embedding_pb.UnloadModelRequest, context: Context
    ) -> embedding_pb.UnloadModelResponse:
        """Unload a model that was loaded on demand."""
        unloaded = await self._models.unload(request.model, deadline_of(context))
        return embedding_pb.UnloadModelResponse(unloaded=unloaded)


class CollectionServicer(collections_grpc.CollectionServiceServicer):
    """CollectionService."""

    def __init__(self, collections: Collections) -> None:
        """Answer from these."""
        self._collections = collections

    async def CreateCollection(  # noqa: N802
        self, request: collections_pb.CreateCollectionRequest, context: Context
    ) -> collections_pb.CreateCollectionResponse:
        """Create an empty collection."""
        created = await self._collections.create(translate.collection_input(request), deadline=deadline_of(context))
        return collections_pb.CreateCollectionResponse(collection=answers.collection_message(created))

    async def GetCollection(  # noqa: N802
        self, request: collections_pb.GetCollectionRequest, context: Context
    ) -> collections_pb.GetCollectionResponse:
        """Describe one collection."""
        found = await self._collections.get(request.name, deadline=deadline_of(context))
        return collections_pb.GetCollectionResponse(collection=answers.collection_message(found))

    async def ListCollections(  # noqa: N802
        self, request: collections_pb.ListCollectionsRequest, context: Context
    ) -> collections_pb.ListCollectionsResponse:
        """List collections in the order of their names."""
        page = await self._collections.list(translate.list_collections_request(request), deadline=deadline_of(context))
        return collections_pb.ListCollectionsResponse(
            collections=[answers.collection_message(each) for each in page.collections],
            next_page_token=page.next_page_token,
        )

    async def DeleteCollection(  # noqa: N802
        self, request: collections_pb.DeleteCollectionRequest, context: Context
    ) -> collections_pb.DeleteCollectionResponse:
        """Delete a collection and all its documents."""
        await self._collections.delete(request.name, deadline=deadline_of(context))
        return collections_pb.DeleteCollectionResponse()


class DocumentServicer(documents_grpc.DocumentServiceServicer):
    """DocumentService."""

    def __init__(self, documents: Documents, translator: Translator) -> None:
        """Answer from these."""
        self._documents = documents
        self._translator = translator

    async def UpsertDocuments(  # noqa: N802
        self, request: documents_pb.UpsertDocumentsRequest, context: Context
    ) -> documents_pb.UpsertDocumentsResponse:
        """Write whole documents."""
        upsert = await self._translator.read(translate.upsert_request, request)
        answer = await self._documents.upsert(upsert, deadline=deadline_of(context))
        return documents_pb.UpsertDocumentsResponse(
            write_token=answer.write_token,
            truncated_indexes=answer.truncated_indexes,
            embedded_count=answer.embedded_count,
        )

    async def GetDocuments(  # noqa: N802
        self, request: documents_pb.GetDocumentsRequest, context: Context
    ) -> documents_pb.GetDocumentsResponse:
        """Read documents by id."""
        get = await self._translator.read(translate.get_request, request)
        answer = await self._documents.get(get, deadline=deadline_of(context))
        return await self._translator.build(answers.get_message, answer, items=len(answer.documents))

    async def DeleteDocuments(  # noqa: N802
        self, request: documents_pb.DeleteDocumentsRequest, context: Context
    ) -> documents_pb.DeleteDocumentsResponse:
        """Delete documents by id or by filter."""
        delete = await self._translator.read(translate.delete_request, request)
        answer = await self._documents.delete(delete, deadline=deadline_of(context))
        return documents_pb.DeleteDocumentsResponse(write_token=answer.write_token, deleted_count=answer.deleted_count)

    async def ListDocuments(  # noqa: N802
        self, request: documents_pb.ListDocumentsRequest, context: Context
    ) -> documents_pb.ListDocumentsResponse:
        """List documents in the order of their ids."""
        page = await self._translator.read(translate.list_request, request)
        answer = await self._documents.list(page, deadline=deadline_of(context))
        return await self._translator.build(answers.list_message, answer, items=len(answer.documents))

    async def CountDocuments(  # noqa: N802
        self, request: documents_pb.CountDocumentsRequest, context: Context
    ) -> documents_pb.CountDocumentsResponse:
        """Count documents."""
        count = await self._translator.read(translate.count_request, request)
        answer = await self._documents.count(count, deadline=deadline_of(context))
        return documents_pb.CountDocumentsResponse(
            count=answer.count, read_state=answers.read_state_message(answer.read_state)
        )


class SearchServicer(search_grpc.SearchServiceServicer):
    """SearchService."""

    def __init__(self, searcher: Searcher, translator: Translator) -> None:
        """Answer from this."""
        self._searcher = searcher
        self._translator = translator

    async def Search(  # noqa: N802
        self, request: search_pb.SearchRequest, context: Context
    ) -> search_pb.SearchResponse:
        """Answer one query."""
        search = await self._translator.read(translate.search_request, request)
        answer = await self._searcher.search(search, deadline=deadline_of(context))
        return await self._translator.build(answers.search_message, answer, items=len(answer.hits))

    async def BatchSearch(  # noqa: N802
        self, request: search_pb.BatchSearchRequest, context: Context
    ) -> search_pb.BatchSearchResponse:
        """Answer several queries over one state of one collection."""
        batch = await self._translator.read(translate.batch_search_request, request)
        answer = await self._searcher.batch(batch, deadline=deadline_of(context))
        items = sum(len(each.hits) for each in answer.results)
        return await self._translator.build(answers.batch_search_message, answer, items=items)
