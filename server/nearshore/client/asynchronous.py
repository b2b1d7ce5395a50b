"""The client for asyncio: the same methods as Client, awaited. For one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from grpc import aio

from nearshore.client import address, channels, codec, readiness, request_ids, streams
from nearshore.client.arguments import instance
from nearshore.client.messages import (
    CollectionInfo,
    Deleted,
    Embedded,
    EmbeddedBatch,
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
    Truncation,
    Upserted,
)
from nearshore.client.retries import DEFAULT_RETRIES, Caller, Retries
from nearshore.client.tokens import WriteTokens
from nearshore.records import F32, Document, IndexKind, Metric

Answer = TypeVar("Answer")
Listed = TypeVar("Listed")


class AsyncClient:
    """Talks to one server, or to all replicas behind a name; as Client does."""

    def __init__(
        self,
        target: str = channels.DEFAULT_TARGET,
        *,
        timeout_s: float = channels.DEFAULT_TIMEOUT_S,
        read_own_writes: bool = True,
        max_message_bytes: int = channels.DEFAULT_MAX_MESSAGE_BYTES,
        retries: Retries = DEFAULT_RETRIES,
    ) -> None:
        """As Client; call it inside the running loop."""
        tokens = WriteTokens(enabled=instance("read_own_writes", read_own_writes, bool))
        self._caller = Caller(address.checked(target), timeout_s, retries, tokens)
        self._channel = aio.insecure_channel(target, channels.options(max_message_bytes))
        self._methods = channels.methods(self._channel)

    async def close(self) -> None:
        """As Client's."""
        self._caller.closed = True
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self.close()

    async def _run(self, call: codec.Call[Answer]) -> Answer:
        attempts = self._caller.begin(call)
        method, metadata = self._methods[call.method], request_ids.metadata()
        while True:
            try:
                message = await method(call.request, timeout=attempts.begin(), metadata=metadata)
            except aio.AioRpcError as failure:
                pause_s = attempts.pause_s(failure.code(), failure.details(), failure.trailing_metadata())
            except aio.UsageError as error:
                raise self._caller.meant_by(error) from None
            else:
                return attempts.succeeded(message)
            await asyncio.sleep(pause_s)

    async def wait_ready(self, timeout_s: float = channels.DEFAULT_TIMEOUT_S) -> None:
        """Wait until the server, or one of those that the name has, has loaded its model and its collections.

        Raises ServerNotReadyError when it answers but is not ready in time, ServerUnreachableError when nothing does.
        """
        await readiness.wait_ready_async(self._channel, self._caller, timeout_s)

    async def create_collection(
        self,
        name: str,
        *,
        model: str = "",
        dimensions: int = 0,
        metric: Metric = Metric.COSINE,
        index_kind: IndexKind = IndexKind.AUTO,
    ) -> CollectionInfo:
        """Create an empty collection, with a model or, for vectors of the caller's own, with dimensions."""
        return await self._run(codec.create_collection(name, model, dimensions, metric, index_kind))

    async def get_collection(self, name: str) -> CollectionInfo:
        """Describe one collection."""
        return await self._run(codec.get_collection(name))

    async def list_collections(self) -> list[CollectionInfo]:
        """All collections by name; reads every page."""
        return await self._pages(codec.list_collections)

    async def list_models(self) -> list[ModelInfo]:
        """All models that calls can name, by name; reads every page."""
        return await self._pages(codec.list_models)

    async def unload_model(self, name: str) -> bool:
        """Unload a model that was loaded on demand, once its calls are over; whether it was loaded. See the proto."""
        return await self._run(codec.unload_model(name))

    async def _pages(self, page: Callable[[str], codec.Call[tuple[list[Listed], str]]]) -> list[Listed]:
        found, page_token = await self._run(page(""))
        while page_token:
            more, page_token = await self._run(page(page_token))
            found.extend(more)
        return found

    async def delete_collection(self, name: str) -> None:
        """Delete a collection and all its documents."""
        await self._run(codec.delete_collection(name))

    async def upsert(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        vectors: F32 | None = None,
        fingerprint: str = "",
        truncation: Truncation = "cut_end",
        request_id: str = "",
    ) -> Upserted:
        """Write whole documents durably, all or none; vectors (len(documents), dimensions) unless the server embeds."""
        packed = codec.vectors_for(vectors, fingerprint)
        return await self._run(codec.upsert(collection, documents, packed, truncation, request_id))

    async def get(self, collection: str, ids: Sequence[str], *, parts: Parts = codec.ALL_BUT_VECTORS) -> Fetched:
        """Read documents by id."""
        return await self._run(codec.get_documents(collection, ids, parts))

    async def delete(
        self,
        collection: str,
        *,
        ids: Sequence[str] = (),
        filter: str = "",  # noqa: A002 -- the API's word
        request_id: str = "",
    ) -> Deleted:
        """Delete documents by id or by filter."""
        return await self._run(codec.delete(collection, ids, filter, request_id))

    async def list_documents(
        self,
        collection: str,
        *,
        filter: str = "",  # noqa: A002 -- the API's word
        page_size: int = 0,
        page_token: str = "",
        parts: Parts = codec.ALL_BUT_VECTORS,
    ) -> Page:
        """Read one page of documents in the order of their ids."""
        return await self._run(codec.list_documents(collection, filter, page_size, page_token, parts))

    async def count(self, collection: str, *, filter: str = "") -> int:  # noqa: A002 -- the API's word
        """Count documents exactly."""
        return await self._run(codec.count(collection, filter))

    async def search(self, collection: str, query: Query | str) -> SearchResult:
        """Find the closest documents; a string is a text query with every default."""
        return await self._run(codec.search(collection, query))

    async def batch_search(self, collection: str, queries: Sequence[Query | str]) -> list[SearchResult]:
        """Answer several queries over one state of the collection."""
        return await self._run(codec.batch_search(collection, queries))

    async def embed(  # noqa: PLR0913 -- each is a field of the request
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        prompt: str | None = None,
        truncation: EmbedTruncation = "cut_end",
        special_tokens: SpecialTokens = "bundle",
        dimensions: int = 0,
        normalize: bool | None = None,
        token_vectors: bool = False,
    ) -> Embedded:
        """Turn texts into vectors.

        prompt: name of one of the model's, "" for none, None for the model's default; dimensions: keep the first so
        many components, 0 for all; normalize: to unit length or not, None for as the bundle says; token_vectors: get
        those of all tokens too.
        """
        call = codec.embed(
            texts,
            model=model,
            prompt=prompt,
            truncation=truncation,
            special_tokens=special_tokens,
            dimensions=dimensions,
            normalize=normalize,
            token_vectors=token_vectors,
        )
        return await self._run(call)

    def embed_stream(  # noqa: PLR0913 -- each is a field of the request
        self,
        batches: Iterable[Sequence[str]] | AsyncIterable[Sequence[str]],
        *,
        model: str = "",
        prompt: str | None = None,
        truncation: EmbedTruncation = "cut_end",
        special_tokens: SpecialTokens = "bundle",
        dimensions: int = 0,
        normalize: bool | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[EmbeddedBatch]:
        """Embed batches of texts while they are read; each one's outcome is given as it is there, in any order.

        batches: lists of texts, awaited or not, read as far ahead as the server takes them; timeout_s: of the whole
        stream, None for none; the rest is as for embed. A batch that fails does so alone, in its outcome. The stream is
        not made again: when it ends early, what ended it is raised, and the batches without an outcome may be sent in
        another. So does a batch that is no list of texts end it, with a TypeError that names it, after the outcomes of
        those before.
        """
        streams.checked(batches, Iterable, AsyncIterable)
        call_of = partial(
            codec.embed,
            model=model,
            prompt=prompt,
            truncation=truncation,
            special_tokens=special_tokens,
            dimensions=dimensions,
            normalize=normalize,
            token_vectors=False,
        )
        return self._stream(streams.Requests(call_of), batches, streams.limit_s(timeout_s))

    async def _stream(
        self,
        requests: streams.Requests,
        batches: Iterable[Sequence[str]] | AsyncIterable[Sequence[str]],
        timeout_s: float | None,
    ) -> AsyncIterator[EmbeddedBatch]:
        target, metadata = self._caller.target, request_ids.metadata()
        try:
            answers = self._methods[streams.METHOD](requests.of_any(batches), timeout=timeout_s, metadata=metadata)
        except aio.UsageError as error:
            raise self._caller.meant_by(error) from None
        try:
            async for answer in answers:
                yield streams.outcome(answer, target)
        except aio.AioRpcError as failure:
            raise streams.ending(failure.code(), failure.details(), failure.trailing_metadata(), target) from None
        finally:
            answers.cancel()  # where the reader has left
        requests.check()

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        model: str = "",
        limit: int | None = None,
        truncation: EmbedTruncation = "cut_end",
    ) -> Reranked:
        """Score how well each text answers the query, by a cross-encoder, and give them best first.

        model: a cross-encoder, "" where the server's default model is one; limit: the best so many, None for all.
        """
        call = codec.rerank(query, texts, model=model, limit=limit, truncation=truncation)
        return await self._run(call)

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        prompt: str | None = None,
        special_tokens: SpecialTokens = "bundle",
    ) -> Tokenized:
        """Show how texts are cut into tokens, with a prompt as for embed."""
        return await self._run(codec.tokenize(texts, model, prompt, special_tokens))
