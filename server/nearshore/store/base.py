"""What a store must do, be it SQLite or PostgreSQL; the contract tests are written against this interface.

The store is the only truth. Each collection has one commit number, `head`. Every row of a write carries the position
of its commit; a delete leaves a tombstone. The feed carries state, not history: a follower asks for all items whose
position lies after its cursor and publishes `head` only once the whole range is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from nearshore.records import Change, Collection, CollectionSpec, Commit, Item, Outline

MAX_PAGE_COMMITS = 1_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a follower stands: the last position whose whole range it applied, and that commit's tag."""

    position: int = 0
    tag: bytes = b""  # empty exactly at position 0


@dataclass(frozen=True, slots=True)
class Walk:
    """Where the next page of one walk over the feed begins, and what proves that it is still the same walk."""

    position: int
    id: str  # the last item delivered was (position, id)
    started: Cursor  # head as the walk's first page saw it
    seen: Cursor  # head as the walk's latest page saw it


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Items of one page, read in one transaction, in the order of (position, id)."""

    items: Sequence[Item]  # tombstones included
    head: Cursor  # the newest commit that this transaction saw
    head_at: datetime | None  # when head was committed; None at position 0
    next: Walk | None  # give it to read_feed for the next page; None: complete, the follower may publish head
    commits: Sequence[Cursor] = ()  # the newest MAX_PAGE_COMMITS since the walk's page before, or cursor; by position


class Store(Protocol):
    """Documents, vectors and the change feed. Thread-safe; every method may block on disk or network.

    Errors common to all: UnavailableError (the store cannot be reached, is locked, or is closed), StorageFullError,
    CollectionNotFoundError for an id that does not exist or was deleted.
    """

    @property
    def durability(self) -> str:
        """When a write is acknowledged, for an operator: one phrase."""

    def create_collection(self, spec: CollectionSpec) -> Collection:
        """Create durably. Raises CollectionExistsError."""

    def get_collection(self, name: str) -> Collection:
        """Find by bare name. Raises CollectionNotFoundError."""

    def list_collections(self) -> list[Collection]:
        """All collections, by name."""

    def delete_collection(self, collection_id: int) -> None:
        """Delete durably; the name is free at once, rows may be removed later in the background."""

    def write(
        self,
        collection_id: int,
        changes: Sequence[Change],
        request_id: str = "",
        request_digest: bytes = b"",
        basis: Cursor | None = None,
    ) -> Future[WriteResult]:
        """Apply changes in one commit, all or none; the future resolves when the commit is durable, never before.

        Ids within `changes` differ. Several callers may share one transaction (group commit, up to the configured
        rows and bytes; one larger call is still one commit); callers of one collection in one transaction share one
        position and are judged in their order: the later caller's change of an id wins. A request_id seen before for
        this collection returns the first write's result and writes nothing, also within one group; with another
        request_digest it raises RequestIdReusedError. A write that changes nothing still gets a commit.
        basis: the commit whose state the changes were decided on; where it is not in the store's history, they were
        decided on another one, and the write fails with HistoryChangedError.
        Everything that goes wrong comes through the future: InvalidArgumentError (an id twice, NUL, wrong width);
        OverloadedError when the queue is full; CommitUnknownError when the outcome of COMMIT cannot be known; after
        every other error nothing was written.
        """

    def find_request(self, collection_id: int, request_id: str, request_digest: bytes) -> WriteResult | None:
        """The result of an earlier write with this request_id, so that a retry need not embed again.

        It may be visible before it is durable: only write() with this request_id acknowledges it.
        Raises RequestIdReusedError when its digest differs.
        """

    def heads(self) -> dict[int, Cursor]:
        """The head of every collection, in one query: what followers poll."""

    def get_items(self, collection_id: int, ids: Sequence[str]) -> dict[str, Item]:
        """The live items of these ids, vectors included; missing and deleted ids are absent."""

    def get_outlines(self, collection_id: int, ids: Sequence[str]) -> dict[str, Outline]:
        """The outlines of the live items of these ids: a twentieth of what get_items reads. Others are absent."""

    def list_ids(self, collection_id: int, prefixes: Sequence[str]) -> list[str]:
        """The ids of the live items that begin with one of the prefixes, each once, in any order.

        A prefix is literal text, compared by code points.
        """

    def read_feed(self, collection_id: int, cursor: Cursor, resume: Walk | None = None, limit: int = 1000) -> FeedPage:
        """One page of the feed after `cursor`, continuing the walk `resume`.

        Raises HistoryChangedError when cursor's tag is not that of its position, or its position is beyond head or
        below floor (a cursor at position 0 is always good: it reads the whole state); and within a walk when floor
        passed the position it started from (a tombstone may be missing) or the head that its latest page saw has
        another tag or is gone (that page's items may be of another history): throw the walk away.
        A page may hold fewer than `limit` items, for it is bounded in bytes too: only `next` says if it was the last.
        """

    def commit_tag(self, collection_id: int, position: int) -> bytes | None:
        """The tag of a commit, or None where the store never had one at that position (beyond head).

        Raises WriteTokenExpiredError below floor, where commits were pruned.
        """

    def prune(self, collection_id: int, keep_s: float) -> int:
        """Forget tombstones, commits and request ids older than keep_s by the store's clock, by raising floor.

        floor is raised first of all; what lies below it goes in many small transactions, however much one commit
        left. The newest commit always stays, and so does the commit at floor: a cursor there is still good. Returns
        what floor was raised to.
        """

    def watch(self, on_commit: Callable[[int], None]) -> None:
        """Call on_commit(collection_id) soon after each commit, from a thread of the store. It must return at once."""

    def close(self) -> None:
        """Finish the queued writes, for some seconds, then release everything. Idempotent.

        What has not begun by then fails as closed, what hangs with CommitUnknownError. A connection or thread that
        cannot be interrupted is left behind.
        """


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did."""

    commit: Commit
    deleted: int  # documents that existed and that this call's Deletes removed
