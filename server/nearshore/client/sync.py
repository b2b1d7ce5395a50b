"""The client for ordinary, blocking code. Thread-safe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import grpc

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


class Client:
    """Talks to one server, or to all replicas behind a name, in turn.

    Every method raises an error of nearshore.errors when the server refuses, or is away for longer than `retries` say.
    An argument that no request can hold is a TypeError or ValueError that names it, and nothing is sent.
    """

    def __init__(
        self,
        target: str = channels.DEFAULT_TARGET,
        *,
        timeout_s: float = channels.DEFAULT_TIMEOUT_S,
        read_own_writes: bool = True,
        max_message_bytes: int = channels.DEFAULT_MAX_MESSAGE_BYTES,
        retries: Retries = DEFAULT_RETRIES,
    ) -> None:
        """Connect lazily to `target`; timeout_s is each call's deadline, retries included. Raises InvalidAddressError.

        Infinity (math.inf) is no deadline. Any other value that an option cannot have is a TypeError or ValueError.
        target: "host:port" or "dns:///host:port", and calls go to all addresses of the host in turn; or a list such as
        "ipv4:192.0.2.1:50051,192.0.2.2:50051". read_own_writes: each read reflects all that this client wrote before.
        retries: when and for how long a failed call is made again; NO_RETRIES: never.
        """
        tokens = WriteTokens(enabled=instance("read_own_writes", read_own_writes, bool))
        self._caller = Caller(address.checked(target), timeout_s, retries, tokens)
        self._channel = grpc.insecure_channel(target, channels.options(max_message_bytes))
        self._methods = channels.methods(self._channel)

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled, and those that wait end with ClientClosedError."""
        self._caller.closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _run(self, call: codec.Call[Answer]) -> Answer:
        attempts = self._caller.begin(call)
        method, metadata = self._methods[call.method], request_ids.metadata()
        while True:
            try:
                message = method(call.request, timeout=attempts.begin(), metadata=metadata)
            except grpc.RpcError as failure:
                pause_s = attempts.pause_s(failure.code(), failure.details(), failure.trailing_metadata())
            except ValueError as error:
                raise self._caller.meant_by(error) from None
            else:
                return attempts.succeeded(message)
            time.sleep(pause_s)

    def wait_ready(self, timeout_s: float = channels.DEFAULT_TIMEOUT_S) -> None:
        """Wait until the server, or one of those that the name has, has loaded its model and its collections.

        Raises ServerNotReadyError when it answers but is not ready in time, ServerUnreachableError when nothing does.
        """
        readiness.wait_ready(self._channel, self._caller, timeout_s)

    def create_collection(
        self,
        name: str,
        *,
        model: str = "",
        dimensions: int = 0,
        metric: Metric = Metric.COSINE,
        index_kind: IndexKind = IndexKind.AUTO,
    ) -> CollectionInfo:
        """Create an empty collection, with a model or, for vectors of the caller's own, with dimensions."""
        return self._run(codec.create_collection(name, model, dimensions, metric, index_kind))

    def get_collection(self, name: str) -> CollectionInfo:
        """Describe one collection."""
        return self._run(codec.get_collection(name))

    def list_collections(self) -> list[CollectionInfo]:
        """All collections by name; reads every page."""
        return self._pages(codec.list_collections)

    def list_models(self) -> list[ModelInfo]:
        """All models that calls can name, by name; reads every page."""
        return self._pages(codec.list_models)

    def unload_model(self, name: str) -> bool:
        """Unload a model that was loaded on demand, once its calls are over; whether it was loaded. See the proto."""
        return self._run(codec.unload_model(name))

    def _pages(self, page: Callable[[str], codec.Call[tuple[list[Listed], str]]]) -> list[Listed]:
        found, page_token = self._run(page(""))
        while page_token:
            more, page_token = self._run(page(page_token))
            found.extend(more)
        return found

    def delete_collection(self, name: str) -> None:
        """Delete a collection and all its documents."""
        self._run(codec.delete_collection(name))

    def upsert(
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
        return self._run(codec.upsert(collection, documents, packed, truncation, request_id))

    def get(self, collection: str, ids: Sequence[str], *, parts: Parts = codec.ALL_BUT_VECTORS) -> Fetched:
        """Read documents by id."""
        return self._run(codec.get_documents(collection, ids, parts))

    def delete(
        self,
        collection: str,
        *,
        ids: Sequence[str] = (),
        filter: str = "",  # noqa: A002 -- the API's word
        request_id: str = "",
    ) -> Deleted:
        """Delete documents by id or by filter."""
        return self._run(codec.delete(collection, ids, filter, request_id))

    def list_documents(
        self,
        collection: str,
        *,
        filter: str = "",  # noqa: A002 -- the API's word
        page_size: int = 0,
        page_token: str = "",
        parts: Parts = codec.ALL_BUT_VECTORS,
    ) -> Page:
        """Read one page of documents in the order of their ids."""
        return self._run(codec.list_documents(collection, filter, page_size, page_token, parts))

    def count(self, collection: str, *, filter: str = "") -> int:  # noqa: A002 -- the API's word
        """Count documents exactly."""
        return self._run(codec.count(collection, filter))

    def search(self, collection: str, query: Query | str) -> SearchResult:
        """Find the closest documents; a string is a text query with every default."""
        return self._run(codec.search(collection, query))

    def batch_search(self, collection: str, queries: Sequence[Query | str]) -> list[SearchResult]:
        """Answer several queries over one state of the collection."""
        return self._run(codec.batch_search(collection, queries))

    def embed(  # noqa: PLR0913 -- each is a field of the request
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

        prompt: name of one of the model's, "" for none, None for the model's default; dimensions: keep so many of the
        first components, 0: all; normalize: to unit length, None: as the bundle says; token_vectors: give those too.
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
        return self._run(call)

    def embed_stream(  # noqa: PLR0913 -- each is a field of the request
        self,
        batches: Iterable[Sequence[str]],
        *,
        model: str = "",
        prompt: str | None = None,
        truncation: EmbedTruncation = "cut_end",
        special_tokens: SpecialTokens = "bundle",
        dimensions: int = 0,
        normalize: bool | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[EmbeddedBatch]:
        """Embed batches of texts while they are read; each one's outcome is given as it is there, in any order.

        batches: lists of texts, read as far ahead as the server takes them; timeout_s: of the whole stream, None for
        none; the rest is as for embed. A batch that fails does so alone, in its outcome; one that is no list of texts
        ends the stream, after the outcomes of those before, with a TypeError that names it. A stream is not made again:
        what ended it early is raised, and batches without an outcome may be sent in another.
        """
        streams.checked(batches, Iterable)
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

    def _stream(
        self, requests: streams.Requests, batches: Iterable[Sequence[str]], timeout_s: float | None
    ) -> Iterator[EmbeddedBatch]:
        target, metadata = self._caller.target, request_ids.metadata()
        try:
            answers = self._methods[streams.METHOD](requests.of(batches), timeout=timeout_s, metadata=metadata)
        except ValueError as error:
            raise self._caller.meant_by(error) from None
        try:
            for answer in answers:
                yield streams.outcome(answer, target)
        except grpc.RpcError as failure:
            raise streams.ending(failure.code(), failure.details(), failure.trailing_metadata(), target) from None
        finally:
            answers.cancel()  # where the reader has left
        requests.check()

    def rerank(
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
        return self._run(codec.rerank(query, texts, model=model, limit=limit, truncation=truncation))

    def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        prompt: str | None = None,
        special_tokens: SpecialTokens = "bundle",
    ) -> Tokenized:
        """Show how texts are cut into tokens, with a prompt as for embed."""
        return self._run(codec.tokenize(texts, model, prompt, special_tokens))
