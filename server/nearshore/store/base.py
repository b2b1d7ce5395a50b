"""What a store must do. SQLite does it in this release; the contract tests are written against this interface.

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

from nearshore.records import Change, Collection, CollectionSpec, Commit, Item


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a follower stands: the last position whose whole range it applied, and that commit's tag."""

    position: int = 0
    tag: bytes = b""  # empty exactly at position 0


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Items of one page, read in one transaction, in the order of (position, id)."""

    items: Sequence[Item]  # tombstones included
    head: Cursor  # the newest commit that this transaction saw
    head_at: datetime | None  # when head was committed; None at position 0
    complete: bool  # no item after these up to head: the follower may publish head
    walk_head: int = 0  # head when the first page of this walk was read


class Store(Protocol):
    """Documents, vectors and the change feed. Thread-safe; every method may block on disk or network.

    Errors common to all: UnavailableError (the store cannot be reached, or is closed), StorageFullError,
    CollectionNotFoundError for an id that does not exist or was deleted.
    """

    def create_collection(self, spec: CollectionSpec) -> Collection:
        """Create durably. Raises CollectionExistsError."""

    def get_collection(self, name: str) -> Collection:
        """Find by bare name. Raises CollectionNotFoundError."""

    def list_collections(self) -> list[Collection]:
        """All collections, by name."""

    def delete_collection(self, collection_id: int) -> None:
        """Delete durably; the name is free at once, rows may be removed later in the background."""

    def write(self, collection_id: int, changes: Sequence[Change], request_id: str = "") -> Future[WriteResult]:
        """Apply changes in one commit, all or none; the future resolves when the commit is durable, never before.

        Ids within `changes` differ. Several callers may share one transaction (group commit); callers of one
        collection in one transaction share one position, the later caller's change of an id wins. A request_id seen
        before for this collection returns the first write's result and writes nothing. A write that changes nothing
        (deletes of absent ids) still gets a commit.
        Whatever goes wrong comes through the future: InvalidArgumentError (duplicate id, NUL, wrong vector width),
        OverloadedError when the writer's queue is full, OutcomeUnknownError when the commit itself failed.
        """

    def get_items(self, collection_id: int, ids: Sequence[str]) -> dict[str, Item]:
        """The live items of these ids, vectors included; missing and deleted ids are absent."""

    def read_feed(
        self, collection_id: int, cursor: Cursor, after: FeedPage | None = None, limit: int = 1000
    ) -> FeedPage:
        """One page of the feed from `cursor`: the first of a walk, or the one behind page `after` of the same walk.

        At most `limit` items, fewer where they are large; only `complete` says that the walk is at its end.
        Raises HistoryChangedError when cursor's tag is not that of its position, or its position is beyond head or
        below floor (a cursor at position 0 is always good: it reads the whole state); and, in mid-walk, when `after`
        was read from another history or tombstones younger than the walk were pruned: throw the walk away.
        """

    def commit_tag(self, collection_id: int, position: int) -> bytes | None:
        """The tag of a commit; None where the store has no such commit (pruned, or another history)."""

    def prune(self, collection_id: int, before: datetime) -> int:
        """Forget tombstones, commits and request ids older than `before` by raising floor, in one transaction.

        The newest commit always stays. Returns the new floor.
        """

    def watch(self, on_commit: Callable[[int], None]) -> None:
        """Call on_commit(collection_id) soon after each commit, from a thread of the store. It must return at once."""

    def close(self) -> None:
        """Finish the queued writes, then release everything. Idempotent."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did."""

    commit: Commit
    deleted: int  # documents that existed and that this call's Deletes removed
