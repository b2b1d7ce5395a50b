"""From a query to hits: embed it if it is text, search one view of the replica, fetch what hits carry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from nearshore.documents.limits import Limits
from nearshore.documents.models import Models, check_words
from nearshore.documents.reading import find_replica, reach
from nearshore.documents.threads import Threads
from nearshore.documents.validate import check_batch_size
from nearshore.documents.vectors import for_metric
from nearshore.documents.waiting import begun, in_thread, result_of, start_in_thread
from nearshore.embedding import Embedder, Embeddings, Truncation
from nearshore.embedding.errors import TextTooLongError
from nearshore.records import F32
from nearshore.replica import Replica, Replicas
from nearshore.search.answering import QueryVector, answer_queries
from nearshore.search.queries import Query, check_inner, checked_query
from nearshore.search.requests import BatchSearchAnswer, BatchSearchRequest, SearchAnswer, SearchRequest

T = TypeVar("T")

_MAX_LOOP_CHARACTERS = 4_000  # of text that is tokenized on the event loop: less work than changing threads
_MAX_INTERACTIVE_QUERIES = 16
_TURN_S = 0.002  # of a batch in a thread; changing threads costs a tenth of a millisecond


class Searcher:
    """Answers searches. Its methods are awaited on one event loop; the index and the local copy are read in `threads`.

    deadline: time.monotonic() seconds, None for none.
    """

    def __init__(self, replicas: Replicas, models: Models, limits: Limits, threads: Threads, *, ef_search: int) -> None:
        """ef_search: how many candidates a graph search keeps unless the request says so. Owns nothing of it."""
        self._replicas = replicas
        self._models = models
        self._limits = limits
        self._threads = threads
        self._ef_search = ef_search

    async def search(self, request: SearchRequest, *, deadline: float | None = None) -> SearchAnswer:
        """Answer one query.

        Raises the errors of validation and of read_after, CollectionNotFoundError, NoModelError,
        FingerprintMismatchError, TextTooLongError, DocumentNotFoundError, OverloadedError, DeadlineError.
        """
        replica = await self._replica(request.collection, request.read_after, deadline)
        query = checked_query(request, "", replica.collection.spec, self._limits, self._ef_search)
        await reach(replica, request.read_after, self._limits, deadline)
        if query.text is not None:
            return await self._answer_text(replica, query, query.text, deadline)
        return (await self._answer(replica, [query], deadline))[0]

    async def batch(self, request: BatchSearchRequest, *, deadline: float | None = None) -> BatchSearchAnswer:
        """Answer several queries over one view, all or none. Raises what search raises, naming the search."""
        replica = await self._replica(request.collection, request.read_after, deadline)
        check_batch_size(len(request.searches), self._limits.max_queries, "searches")
        queries = []
        for index, each in enumerate(request.searches):
            check_inner(each, index, request.collection)
            field = f"searches[{index}]."
            queries.append(checked_query(each, field, replica.collection.spec, self._limits, self._ef_search))
        await reach(replica, request.read_after, self._limits, deadline)
        return BatchSearchAnswer(await self._answer(replica, queries, deadline))

    async def _replica(self, name: str, read_after: Sequence[str], deadline: float | None) -> Replica:
        return await find_replica(
            self._replicas, name, self._threads, self._limits, read_after=read_after, deadline=deadline
        )

    async def _answer(self, replica: Replica, queries: Sequence[Query], deadline: float | None) -> list[SearchAnswer]:
        embedded = await self._embed(replica, queries, deadline)
        answers = answer_queries(replica, queries, embedded, self._limits, deadline)
        answered: list[SearchAnswer] = []
        while len(answered) < len(queries):  # in turns, so that no batch holds up the searches that come after it
            answered += await in_thread(self._threads.searches, partial(_turn, answers))
        return answered

    async def _answer_text(self, replica: Replica, query: Query, text: str, deadline: float | None) -> SearchAnswer:
        """Answer one text. The thread that embeds it goes on to search: changing threads costs as much as the graph."""
        started = time.perf_counter()

        def search(embeddings: Embeddings) -> SearchAnswer:
            made = _made(replica, embedder, [query], embeddings, time.perf_counter() - started)
            return next(answer_queries(replica, [query], made, self._limits, deadline))

        start = partial(start_in_thread, self._threads.searches)  # where no worker embeds the text
        with await self._models.lease_of(replica.collection.spec, deadline) as lease:
            embedder = lease.embedder
            submit = partial(embedder.submit_query, text, search, deadline=deadline, start_known=start)
            future = await self._begun([text], submit, deadline)
            return await result_of(future, deadline, "searching")

    async def _embed(
        self, replica: Replica, queries: Sequence[Query], deadline: float | None
    ) -> Sequence[QueryVector | None]:
        """Embed the text queries in one submission; one entry a query, None unless it is text."""
        texts = [query.text for query in queries if query.text is not None]
        if not texts:
            return [None] * len(queries)
        started = time.perf_counter()
        bulk = len(texts) > _MAX_INTERACTIVE_QUERIES
        with await self._models.lease_of(replica.collection.spec, deadline) as lease:
            embedder = lease.embedder
            submit = partial(embedder.submit, texts, prompt=embedder.prompts.query, bulk=bulk, deadline=deadline)
            future = await self._begun(texts, submit, deadline)
            embeddings = await result_of(future, deadline, "embedding the query")
            return _made(replica, embedder, queries, embeddings, time.perf_counter() - started)

    async def _begun(self, texts: Sequence[str], submit: Callable[[], Future[T]], deadline: float | None) -> Future[T]:
        at_once = sum(map(len, texts)) <= _MAX_LOOP_CHARACTERS
        return await begun(self._threads.searches, submit, deadline, at_once=at_once)


def _made(
    replica: Replica, embedder: Embedder, queries: Sequence[Query], embeddings: Embeddings, embedding_s: float
) -> Sequence[QueryVector | None]:
    """What became of the text queries; one entry a query. Raises EmptyTextError, TextTooLongError."""
    texts = [query.text for query in queries if query.text is not None]
    fields = [f"{query.field}text" for query in queries if query.text is not None]
    check_words(embedder, texts, embeddings.tokens, fields, embedder.prompts.query)
    vectors = for_metric(embeddings.vectors, replica.collection.spec.metric, "query")
    made = iter(zip(vectors, embeddings.tokens, embeddings.tokens_used, strict=True))
    return [
        None if query.text is None else _query_vector(query, position, next(made), embedding_s)
        for position, query in enumerate(queries)
    ]


def _turn(answers: Iterator[SearchAnswer]) -> list[SearchAnswer]:
    """The next answers, at least one, as many as _TURN_S suffices for."""
    end_s = time.perf_counter() + _TURN_S
    answered: list[SearchAnswer] = []
    for answer in answers:
        answered.append(answer)
        if time.perf_counter() >= end_s:
            break
    return answered


def _query_vector(query: Query, position: int, embedded: tuple[F32, int, int], embedding_s: float) -> QueryVector:
    """Raises TextTooLongError where the caller forbids that its query is cut."""
    vector, tokens, tokens_used = embedded
    if tokens_used < tokens and query.truncation is Truncation.REFUSE:
        raise TextTooLongError(position, tokens, tokens_used)
    return QueryVector(vector, tokens, tokens_used, embedding_s)
