"""The way into a collection of a store that this process has open: no server in between, the same rules.

What is stored already, exactly so, is not written again: a run over unchanged input reads and compares. So a run that
was killed is repeated by running it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nearshore.documents.upserts import UpsertPlan, content_hash, plan_embedding, request_digest
from nearshore.documents.waiting import outcome_of
from nearshore.embedding import Embedder
from nearshore.errors import CollectionNotFoundError, NearshoreError, OverloadedError, UnavailableError
from nearshore.records import Change, Collection, Delete, Document, Metadata, Outline, WriteToken
from nearshore.store.base import Store
from nearshore_indexer.pipeline import Written, is_beyond

_NOTHING = Written(written=0, embedded=0, truncated=0)


@dataclass(frozen=True, slots=True)
class _Embedded:
    """A batch that is ready for the store."""

    changes: Sequence[Change]
    digest: bytes  # to recognise a repetition
    written: Written  # what its writing will have been


class StoreSink:
    """Embeds what changed and commits it. Documents have passed validation: every reader checks what it makes."""

    name = "the store"
    retryable: tuple[type[NearshoreError], ...] = (OverloadedError, UnavailableError)

    def __init__(
        self,
        store: Store,
        collection: Collection,
        embedder: Embedder,
        *,
        check: Callable[[], None],
        applied: Callable[[WriteToken], Awaitable[None]] | None = None,
    ) -> None:
        """embedder: the collection's model; check: raises when a thread of the process has died.

        applied: returns once searches of this process see a write; None where others serve the store.
        """
        self._store = store
        self._collection = collection
        self._embedder = embedder
        self._check = check
        self._applied = applied
        self._newest: WriteToken | None = None
        self._refused: dict[str, _Embedded] = {}  # by request id: the store was away or full

    async def write(self, documents: Sequence[Document], request_id: str) -> Written:
        """See Sink. What a refused attempt embedded is kept for the next one with its request id."""
        self._check()
        with self._missed_by_name():
            ready = self._refused.pop(request_id, None) or await self._embed(documents)
            if ready.changes:
                try:
                    await self._commit(ready.changes, request_id, ready.digest)
                except self.retryable:
                    self._refused[request_id] = ready
                    raise
        return ready.written

    async def wait_searchable(self) -> None:
        """See Sink; where others serve the store, what is committed counts as found."""
        if self._newest is not None and self._applied is not None:
            await self._applied(self._newest)

    async def stale(self, passage_counts: Mapping[str, int]) -> list[str]:
        """See Sink."""
        with self._missed_by_name():
            return await asyncio.to_thread(self._stale, passage_counts)

    async def delete(self, ids: Sequence[str]) -> None:
        """See Sink."""
        with self._missed_by_name():
            await self._commit([Delete(each) for each in ids], "", b"")

    @contextlib.contextmanager
    def _missed_by_name(self) -> Iterator[None]:
        """Name a collection that was deleted meanwhile: the store knows it by number."""
        try:
            yield
        except CollectionNotFoundError:
            raise CollectionNotFoundError(self._collection.spec.name) from None

    async def _embed(self, documents: Sequence[Document]) -> _Embedded:
        changed = await asyncio.to_thread(self._changed, documents)
        if not changed:
            return _Embedded((), b"", _NOTHING)
        begun = UpsertPlan(self._collection, changed, request_digest(changed, None), [])
        plan = await asyncio.to_thread(plan_embedding, begun, self._store, self._embedder)
        truncated = 0
        if plan.embedding is not None:
            embeddings = await asyncio.wrap_future(plan.embedding)  # cancelled with this task
            truncated = len(plan.truncated_indexes(embeddings))
            plan.complete(embeddings, self._embedder)
        return _Embedded(plan.changes(), plan.digest, Written(len(changed), len(plan.pending), truncated))

    async def _commit(self, changes: Sequence[Change], request_id: str, digest: bytes) -> None:
        write = await asyncio.to_thread(self._store.write, self._collection.id, changes, request_id, digest)
        token = (await outcome_of(write, None, repeatable=bool(request_id))).commit.token
        if self._newest is None or self._newest.position < token.position:
            self._newest = token

    def _changed(self, documents: Sequence[Document]) -> list[Document]:
        """The documents that the store does not have as they are."""
        outlines = self._store.get_outlines(self._collection.id, [each.id for each in documents])
        return [each for each in documents if not _is_same(each, outlines.get(each.id))]

    def _stale(self, passage_counts: Mapping[str, int]) -> list[str]:
        prefixes = [f"{parent}#" for parent in passage_counts]
        found = [
            each for each in self._store.list_ids(self._collection.id, prefixes) if is_beyond(each, passage_counts)
        ]
        outlines = self._store.get_outlines(self._collection.id, found)
        return [each for each in found if each in outlines and outlines[each].parent_id == each.rpartition("#")[0]]


def _is_same(document: Document, outline: Outline | None) -> bool:
    return (
        outline is not None
        and outline.content_hash == content_hash(document)
        and outline.parent_id == document.parent_id
        and _spelt(outline.metadata) == _spelt(document.metadata)
    )


def _spelt(metadata: Metadata) -> str:
    """Metadata such that 1, 1.0 and True differ, and the order of keys does not matter."""
    return repr(sorted(metadata.items())) if metadata else ""
