"""Writes and reads documents. A write is acknowledged when it is durable; reads come from the replica's view."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import numpy as np

from nearshore.documents.errors import FieldNotAllowedError, IdsOrFilterError
from nearshore.documents.limits import Limits
from nearshore.documents.models import Models
from nearshore.documents.page_tokens import page_size, page_start, page_token
from nearshore.documents.reading import (
    answer_bytes,
    check_answer_bytes,
    find_replica,
    reach,
    read_state,
    successor,
    with_parts,
)
from nearshore.documents.requests import (
    CountAnswer,
    CountRequest,
    DeleteAnswer,
    DeleteRequest,
    GetAnswer,
    GetRequest,
    ListAnswer,
    ListRequest,
    UpsertAnswer,
    UpsertRequest,
    Vectors,
)
from nearshore.documents.store_threads import claim_store
from nearshore.documents.threads import Threads
from nearshore.documents.upserts import UpsertPlan, plan_embedding, plan_upsert
from nearshore.documents.validate import check_ids, check_request_id, parsed_filter
from nearshore.documents.waiting import check_deadline, in_thread, outcome_of, result_of, turn_of
from nearshore.embedding import Embedder, Truncation
from nearshore.errors import CollectionNotFoundError, InvalidArgumentError, PreconditionError
from nearshore.index.filters import Filter
from nearshore.records import Delete, Document, WriteToken
from nearshore.replica import Replica, Replicas, ReplicaView
from nearshore.store.base import Cursor, Store, WriteResult

Answer = TypeVar("Answer")

_READ_ROWS = 64  # documents of a list taken from the local copy at once


class Documents:
    """The documents of all collections. Its methods are awaited on one event loop; blocking work runs in `threads`.

    deadline: time.monotonic() seconds, None for none.
    """

    def __init__(self, store: Store, replicas: Replicas, models: Models, limits: Limits, threads: Threads) -> None:
        """Decide with these; owns none of them."""
        self._store = store
        self._replicas = replicas
        self._models = models
        self._limits = limits
        self._threads = threads

    async def upsert(self, request: UpsertRequest, *, deadline: float | None = None) -> UpsertAnswer:
        """Write whole documents in one commit.

        Raises the errors of validation, CollectionNotFoundError, FingerprintMismatchError, OverloadedError,
        DeadlineError, RequestIdReusedError and the store's; after all but CommitUnknownError and
        WriteOutcomePendingError nothing was written.
        """
        return await self._written(
            request.collection, lambda replica: self._upsert(request, replica, deadline), deadline
        )

    async def _upsert(self, request: UpsertRequest, replica: Replica, deadline: float | None) -> UpsertAnswer:
        plan = await self._threads.store.run(
            partial(plan_upsert, request, replica.collection, self._store, self._limits), deadline
        )
        truncated: tuple[int, ...] = ()
        if plan.lacks_vectors:
            with await self._models.lease_of(replica.collection.spec, deadline) as lease:
                plan, truncated = await self._embedded(plan, lease.embedder, request.truncation, deadline)
        store, collection_id = self._store, replica.collection.id
        result = await self._write(
            replica,
            lambda: store.write(collection_id, plan.changes(), request.request_id, plan.digest, plan.basis),
            deadline,
            repeatable=bool(request.request_id),
        )
        return UpsertAnswer(result.commit.token.encode(), truncated, len(plan.pending))

    async def _embedded(
        self, plan: UpsertPlan, embedder: Embedder, truncation: Truncation, deadline: float | None
    ) -> tuple[UpsertPlan, tuple[int, ...]]:
        """The plan with all vectors, and the indexes of the documents that were cut."""
        plan = await self._threads.store.run(
            partial(plan_embedding, plan, self._store, embedder, truncation=truncation, deadline=deadline),
            deadline,
            UpsertPlan.give_up,
        )
        if plan.embedding is None:
            return plan, ()
        embeddings = await result_of(plan.embedding, deadline, "embedding")
        plan.complete(embeddings, embedder)
        return plan, plan.truncated_indexes(embeddings)

    async def delete(self, request: DeleteRequest, *, deadline: float | None = None) -> DeleteAnswer:
        """Delete by ids or by filter, in one commit.

        Raises IdsOrFilterError, the errors of validation, CollectionNotFoundError, DeadlineError and the store's.
        """
        return await self._written(
            request.collection, lambda replica: self._delete(request, replica, deadline), deadline
        )

    async def _delete(self, request: DeleteRequest, replica: Replica, deadline: float | None) -> DeleteAnswer:
        by_filter = bool(request.filter.strip())
        if by_filter == bool(request.ids):
            raise IdsOrFilterError(
                "A delete needs either ids or a filter.",
                "Send one of them. To empty a collection, delete it and create it again.",
            )
        if by_filter:
            return await self._delete_matching(request, replica, deadline)
        check_request_id(request.request_id)
        check_ids(request.ids, "ids", self._limits)
        ids = list(dict.fromkeys(request.ids))
        digest = hashlib.blake2b("\0".join(ids).encode(), digest_size=16).digest() if request.request_id else b""
        deletes = [Delete(document_id) for document_id in ids]
        write = partial(self._store.write, replica.collection.id, deletes, request.request_id, digest)
        return _deleted(await self._write(replica, write, deadline, repeatable=bool(request.request_id)))

    async def get(self, request: GetRequest, *, deadline: float | None = None) -> GetAnswer:
        """Read documents by id. Raises the errors of validation, of read_after, and AnswerTooLargeError."""
        replica = await self._replica(request.collection, request.read_after, deadline)
        check_ids(request.ids, "ids", self._limits)
        await reach(replica, request.read_after, self._limits, deadline)
        return await in_thread(self._threads.work, partial(self._read, replica, request))

    async def list(self, request: ListRequest, *, deadline: float | None = None) -> ListAnswer:
        """Read one page of documents in the order of their ids. Raises the errors of validation and of read_after."""
        replica = await self._replica(request.collection, request.read_after, deadline)
        scope = f"{replica.collection.id}\0{request.filter}"
        after = page_start(scope, request.page_token)
        size = page_size(request.page_size)
        await reach(replica, request.read_after, self._limits, deadline)

        def page() -> ListAnswer:
            wanted = parsed_filter(request.filter, self._limits)
            view, rows, more = replica.list_page(after, size, wanted)
            documents = self._page_documents(view, rows, request)
            more = more or len(documents) < len(rows)
            return ListAnswer(
                documents,
                page_token(scope, documents[-1].id) if more else "",
                _vectors(replica, view, rows[: len(documents)]) if request.parts.vector else None,
                read_state(replica, view),
            )

        return await in_thread(self._threads.work, page)

    async def count(self, request: CountRequest, *, deadline: float | None = None) -> CountAnswer:
        """Count documents, exactly. Raises the errors of validation and of read_after."""
        replica = await self._replica(request.collection, request.read_after, deadline)
        await reach(replica, request.read_after, self._limits, deadline)

        def count() -> CountAnswer:
            view, documents = replica.count(parsed_filter(request.filter, self._limits))
            return CountAnswer(documents, read_state(replica, view))

        return await in_thread(self._threads.work, count)

    async def _replica(self, name: str, read_after: Sequence[str], deadline: float | None) -> Replica:
        return await find_replica(
            self._replicas, name, self._threads, self._limits, read_after=read_after, deadline=deadline
        )

    async def _written(
        self, name: str, write: Callable[[Replica], Awaitable[Answer]], deadline: float | None
    ) -> Answer:
        """Do it to the collection of that name, which another replica may have replaced by a namesake.

        A refusal may rest on a collection that is gone; after it, nothing was written.
        """
        claim_store()
        replica = await self._replica(name, (), deadline)
        while True:
            try:
                return await write(replica)
            except (CollectionNotFoundError, InvalidArgumentError, PreconditionError) as refusal:
                replica = await successor(self._replicas, replica, self._threads, refusal, deadline)

    def _read(self, replica: Replica, request: GetRequest) -> GetAnswer:
        view, found = replica.lookup(request.ids)
        rows = found[found >= 0]
        documents = [with_parts(document, request.parts) for document in view.documents(rows)]
        dimensions = replica.collection.spec.dimensions
        check_answer_bytes(sum(answer_bytes(each, request.parts, dimensions) for each in documents), self._limits)
        return GetAnswer(
            documents,
            [document_id for document_id, row in zip(request.ids, found, strict=True) if row < 0],
            _vectors(replica, view, rows) if request.parts.vector else None,
            read_state(replica, view),
        )

    def _page_documents(
        self, view: ReplicaView, rows: np.ndarray[tuple[int], np.dtype[np.int64]], request: ListRequest
    ) -> Sequence[Document]:
        """The first of `rows` that fit into a page; always one, if there is one."""
        documents: list[Document] = []
        room = self._limits.max_page_bytes
        for start in range(0, len(rows), _READ_ROWS):
            for document in view.documents(rows[start : start + _READ_ROWS]):
                shown = with_parts(document, request.parts)
                room -= answer_bytes(shown, request.parts, view.index.rows.shape[1])
                if room < 0 and documents:
                    return documents
                documents.append(shown)
        return documents

    async def _delete_matching(self, request: DeleteRequest, replica: Replica, deadline: float | None) -> DeleteAnswer:
        """Delete what a view not older than the call matches, except what was replaced since; all in one commit.

        One commit of any size: readers on any replica see all of it or nothing.
        """
        if request.request_id:
            raise FieldNotAllowedError(
                "request_id cannot go with a filter.", "Leave it out: a repeat deletes what matches by then."
            )
        wanted = await in_thread(self._threads.work, partial(parsed_filter, request.filter, self._limits))
        head = (await self._threads.store.run(self._store.heads, deadline)).get(replica.collection.id)
        if head is None:
            raise CollectionNotFoundError(replica.collection.spec.name)
        if wanted is None or head.position == 0:
            return DeleteAnswer("", 0)
        token = WriteToken(replica.collection.id, head.position, head.tag)
        await reach(replica, [token.encode()], self._limits, deadline)
        deletes, basis = await in_thread(self._threads.work, partial(_matching_deletes, replica, wanted))
        if not deletes:
            return DeleteAnswer("", 0)
        write = partial(self._store.write, replica.collection.id, deletes, basis=basis)
        return _deleted(await self._write(replica, write, deadline, repeatable=False))

    async def _write(
        self, replica: Replica, write: Callable[[], Future[WriteResult]], deadline: float | None, *, repeatable: bool
    ) -> WriteResult:
        """One commit, as soon as the replica keeps up with the commits before it."""
        await turn_of(replica.pace.turn(), deadline)
        check_deadline(deadline, "the write began")
        submission = await self._threads.store.begin(write, deadline)
        commit = await outcome_of(submission, deadline, repeatable=repeatable)
        return await outcome_of(commit, deadline, repeatable=repeatable)


def _matching_deletes(replica: Replica, wanted: Filter) -> tuple[list[Delete], Cursor]:
    """What the newest view matches, and the commit that it stands at."""
    view = replica.view()
    mask = view.index.mask(wanted)
    rows = np.flatnonzero(mask) if mask is not None else np.zeros(0, np.int64)
    deletes = [Delete(document_id, unchanged_since=view.position) for document_id in view.ids(rows)]
    return deletes, Cursor(view.position, view.tag)


def _vectors(replica: Replica, view: ReplicaView, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Vectors:
    return Vectors.from_array(view.vectors(rows), replica.collection.spec.fingerprint)


def _deleted(result: WriteResult) -> DeleteAnswer:
    return DeleteAnswer(result.commit.token.encode(), result.deleted)
