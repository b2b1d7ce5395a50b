"""The store of one machine: an SQLite file in WAL mode, one writing thread, many readers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

from nearshore.errors import NearshoreError
from nearshore.records import Change, Collection, CollectionSpec, Item, Outline
from nearshore.store import collections, commits, feed, housekeeping, lookups
from nearshore.store.base import Cursor, FeedPage, Walk, WriteResult
from nearshore.store.readers import Readers
from nearshore.store.rows import Write, encode_changes, to_microseconds
from nearshore.store.schema import FILE_NAME, open_for_writing
from nearshore.store.session import SqliteSession
from nearshore.store.writer import PRUNE_ROWS, Limits, Writer

_MAX_READERS = 16


class SqliteStore:
    """Implements store.base.Store on a local folder. Thread-safe; the folder must be locked by the caller."""

    def __init__(self, writer: Writer[sqlite3.Connection], readers: Readers) -> None:
        """Use SqliteStore.open."""
        self._writer = writer
        self._readers = readers
        self._dimensions: dict[int, int] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def durability(self) -> str:
        """See Store."""
        return "a write is acknowledged after fsync (SQLite WAL, synchronous=FULL)"

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        max_transaction_rows: int,
        max_transaction_bytes: int,
        max_queued_bytes: int,
        on_death: Callable[[BaseException], None] = lambda _: None,
    ) -> SqliteStore:
        """Open the store in folder, creating both as needed.

        One group of writes takes at most max_transaction_rows rows and max_transaction_bytes bytes; writes beyond
        max_queued_bytes waiting bytes are refused. on_death is told when the writing thread dies; the process has to
        end then, for no write succeeds any more. Raises what schema.open_for_writing does.
        """
        file = folder / FILE_NAME
        limits = Limits(max_transaction_rows, max_transaction_bytes, max_queued_bytes)
        session = SqliteSession(open_for_writing(file), file)
        return cls(Writer(session, limits, on_death), Readers(file, _MAX_READERS))

    def create_collection(self, spec: CollectionSpec) -> Collection:
        """See Store."""
        return self._writer.run(lambda connection: collections.create(connection, spec), "creating a collection")

    def get_collection(self, name: str) -> Collection:
        """See Store."""
        with self._readers.transaction("reading a collection") as connection:
            return collections.find(connection, name)

    def list_collections(self) -> list[Collection]:
        """See Store."""
        with self._readers.transaction("listing collections") as connection:
            return collections.list_all(connection)

    def delete_collection(self, collection_id: int) -> None:
        """See Store."""
        self._writer.run(lambda connection: collections.delete(connection, collection_id), "deleting a collection")
        self._dimensions.pop(collection_id, None)
        self._writer.tidy()

    def write(
        self,
        collection_id: int,
        changes: Sequence[Change],
        request_id: str = "",
        request_digest: bytes = b"",
        basis: Cursor | None = None,
    ) -> Future[WriteResult]:
        """See Store."""
        try:
            rows = encode_changes(changes, self._width(collection_id))
        except NearshoreError as error:
            refused: Future[WriteResult] = Future()
            refused.set_exception(error)
            return refused
        return self._writer.submit(Write(collection_id, rows, request_id, request_digest, basis))

    def find_request(self, collection_id: int, request_id: str, request_digest: bytes) -> WriteResult | None:
        """See Store."""
        with self._readers.transaction("looking for a request") as connection:
            return commits.find_request(connection, collection_id, request_id, request_digest)

    def heads(self) -> dict[int, Cursor]:
        """See Store."""
        with self._readers.transaction("reading the heads") as connection:
            return feed.read_heads(connection)

    def get_items(self, collection_id: int, ids: Sequence[str]) -> dict[str, Item]:
        """See Store."""
        items: dict[str, Item] = {}
        for start in range(0, len(ids), feed.MAX_PAGE_ROWS):
            with self._readers.transaction("reading documents") as connection:
                items.update(feed.read_live(connection, collection_id, ids[start : start + feed.MAX_PAGE_ROWS]))
        return items

    def get_outlines(self, collection_id: int, ids: Sequence[str]) -> dict[str, Outline]:
        """See Store."""
        with self._readers.transaction("comparing documents") as connection:
            return lookups.read_outlines(connection, collection_id, ids)

    def list_ids(self, collection_id: int, prefixes: Sequence[str]) -> list[str]:
        """See Store."""
        found: dict[str, None] = {}
        for prefix in prefixes:
            with self._readers.transaction("listing ids") as connection:
                found |= dict.fromkeys(lookups.read_ids(connection, collection_id, prefix))
        return list(found)

    def read_feed(
        self, collection_id: int, cursor: Cursor, resume: Walk | None = None, limit: int = feed.MAX_PAGE_ROWS
    ) -> FeedPage:
        """See Store."""
        with self._readers.transaction("reading the feed") as connection:
            return feed.read_page(connection, collection_id, cursor, resume, limit)

    def commit_tag(self, collection_id: int, position: int) -> bytes | None:
        """See Store."""
        with self._readers.transaction("reading a commit") as connection:
            return feed.read_tag(connection, collection_id, position)

    def prune(self, collection_id: int, keep_s: float) -> int:
        """See Store. Each step is a transaction of its own, so that writes get their turns."""
        before_us = to_microseconds(datetime.now(UTC)) - round(keep_s * 1e6)
        with self._readers.transaction("looking for old commits") as connection:
            target = housekeeping.last_position_before(connection, collection_id, before_us)
        while self._writer.run(
            lambda connection: housekeeping.forget(connection, collection_id, target, PRUNE_ROWS),
            "forgetting old commits",
        ):
            pass
        self._writer.tidy()
        return target

    def watch(self, on_commit: Callable[[int], None]) -> None:
        """See Store."""
        self._writer.watch(on_commit)

    def close(self) -> None:
        """See Store."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._readers.close()
                self._writer.close()
                self._writer.join()  # else another process could have the folder while this one writes there

    def _width(self, collection_id: int) -> int:
        """The dimensions of a collection; remembered, for ids are never used again."""
        known = self._dimensions.get(collection_id)
        if known is None:
            with self._readers.transaction("reading a collection") as connection:
                known = collections.require(connection, collection_id).spec.dimensions
            self._dimensions[collection_id] = known
        return known
