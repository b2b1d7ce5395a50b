"""The store of a cluster: one PostgreSQL, and in each process one writing thread, one listener, some readers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import psycopg
import structlog

from nearshore.errors import CollectionNotFoundError, NearshoreError
from nearshore.records import Change, Collection, CollectionSpec, Item, Outline
from nearshore.store.base import Cursor, FeedPage, Walk, WriteResult
from nearshore.store.feed import MAX_PAGE_ROWS
from nearshore.store.postgres import collections, commits, durability, feed, housekeeping, namespace, schema
from nearshore.store.postgres.connections import Address, Readers
from nearshore.store.postgres.failures import refused
from nearshore.store.postgres.listener import Listener
from nearshore.store.postgres.patience import Connection
from nearshore.store.postgres.session import PostgresSession
from nearshore.store.postgres.transactions import Transactions
from nearshore.store.rows import Write, check_text, encode_changes, is_text
from nearshore.store.writer import PRUNE_ROWS, Limits, Writer

_log = structlog.get_logger(__name__)


class PostgresStore:
    """Implements store.base.Store on a PostgreSQL that other processes write to as well. Thread-safe."""

    def __init__(
        self, session: PostgresSession, writer: Writer[Connection], readers: Readers, listener: Listener
    ) -> None:
        """Use PostgresStore.open."""
        self._session = session
        self._writer = writer
        self._readers = readers
        self._listener = listener
        self._dimensions: dict[int, int] = {}
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls,
        url: str,
        *,
        max_connections: int,
        connect_timeout_s: float,
        statement_timeout_s: float,
        limits: Limits,
        on_death: Callable[[BaseException], None] = lambda _: None,
    ) -> PostgresStore:
        """Open the store at url, making or migrating its tables as needed.

        Takes one connection to write, one to listen, and up to max_connections to read; connect_timeout_s bounds each
        attempt to connect, and how long a reader waits for one; statement_timeout_s what one reading statement takes,
        and, but for some seconds, how long the server may be silent. limits and on_death are as in SqliteStore.open.
        Raises StoreUrlError (an unusable URL, refused credentials, no such database, missing rights),
        StoreUnavailableError (not reachable now: try again later) and StoreFormatError (tables of another program or
        of a later release).
        """
        address = Address.of(url, connect_timeout_s, statement_timeout_s)
        address, connection, phrase = _prepare(address)
        session = PostgresSession(Transactions(address, connection), phrase)
        writer = Writer(session, limits, on_death)
        readers = Readers(address, max_connections)
        listener = Listener(address, lambda: session.process_id, writer.tell)
        return cls(session, writer, readers, listener)

    @property
    def durability(self) -> str:
        """See Store."""
        return self._session.durability

    def create_collection(self, spec: CollectionSpec) -> Collection:
        """See Store."""

        def create(connection: Connection) -> Collection:
            created = collections.create(connection, spec)
            self._session.tell_others(created.id)
            return created

        return self._writer.run(create, "creating a collection")

    def get_collection(self, name: str) -> Collection:
        """See Store."""
        found = self._readers.run("reading a collection", collections.find, name) if is_text(name) else None
        if found is None:
            raise CollectionNotFoundError(name)
        return found

    def list_collections(self) -> list[Collection]:
        """See Store."""
        return self._readers.run("listing collections", collections.list_all)

    def delete_collection(self, collection_id: int) -> None:
        """See Store."""

        def delete(connection: Connection) -> None:
            collections.delete(connection, collection_id)
            self._session.tell_others(collection_id)

        self._writer.run(delete, "deleting a collection")
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
            check_text(request_id, f"of request {request_id!r}")
            rows = encode_changes(changes, self._width(collection_id))
        except NearshoreError as error:
            future: Future[WriteResult] = Future()
            future.set_exception(error)
            return future
        return self._writer.submit(Write(collection_id, rows, request_id, request_digest, basis))

    def find_request(self, collection_id: int, request_id: str, request_digest: bytes) -> WriteResult | None:
        """See Store."""
        check_text(request_id, f"of request {request_id!r}")
        arguments = (collection_id, request_id, request_digest)
        return self._readers.run("looking for a request", commits.find_request, *arguments)

    def heads(self) -> dict[int, Cursor]:
        """See Store."""
        return self._readers.run("reading the heads", feed.read_heads)

    def get_items(self, collection_id: int, ids: Sequence[str]) -> dict[str, Item]:
        """See Store."""
        items: dict[str, Item] = {}
        for page in _pages(ids):
            items.update(self._readers.run("reading documents", feed.read_live, collection_id, page))
        return items

    def get_outlines(self, collection_id: int, ids: Sequence[str]) -> dict[str, Outline]:
        """See Store."""
        outlines: dict[str, Outline] = {}
        for page in _pages(ids):
            outlines.update(self._readers.run("comparing documents", feed.read_outlines, collection_id, page))
        return outlines

    def list_ids(self, collection_id: int, prefixes: Sequence[str]) -> list[str]:
        """See Store."""
        found: dict[str, None] = {}
        for prefix in filter(is_text, prefixes):
            found |= dict.fromkeys(self._readers.run("listing ids", feed.read_ids, collection_id, prefix))
        return list(found)

    def read_feed(
        self, collection_id: int, cursor: Cursor, resume: Walk | None = None, limit: int = MAX_PAGE_ROWS
    ) -> FeedPage:
        """See Store."""
        return self._readers.run("reading the feed", feed.read_page, collection_id, cursor, resume, limit)

    def commit_tag(self, collection_id: int, position: int) -> bytes | None:
        """See Store."""
        return self._readers.run("reading a commit", feed.read_tag, collection_id, position)

    def prune(self, collection_id: int, keep_s: float) -> int:
        """See Store. Each step is a transaction of its own, so that writes get their turns."""
        target = self._readers.run("looking for old commits", housekeeping.last_position_before, collection_id, keep_s)
        while self._writer.run(
            lambda connection: housekeeping.forget(connection, collection_id, target, PRUNE_ROWS),
            "forgetting old commits",
        ):
            pass
        return target

    def watch(self, on_commit: Callable[[int], None]) -> None:
        """See Store. Own commits are told by the writing thread, those of other processes by the listener."""
        self._writer.watch(on_commit)

    def close(self) -> None:
        """See Store."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._writer.close()
                self._readers.close()
                self._listener.close()

    def _width(self, collection_id: int) -> int:
        """The dimensions of a collection; remembered, for ids are never used again."""
        known = self._dimensions.get(collection_id)
        if known is None:
            collection = self._readers.run("reading a collection", collections.require, collection_id)
            known = self._dimensions[collection_id] = collection.spec.dimensions
        return known


def _prepare(address: Address) -> tuple[Address, Connection, str]:
    """The address with its schema, the writing connection to it, where the tables are now, and what writes survive."""
    connection = None
    try:
        connection = address.connect_writer()
        found = namespace.find(connection, address.place)
        connection.execute(namespace.setting(found))
        schema.migrate(connection, address.place)
        return replace(address, schema=found), connection, durability.describe(connection, address.place)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, psycopg.Error):
            raise refused(error, address.place, "opening the store") from error
        raise


def _pages(ids: Sequence[str]) -> list[list[str]]:
    """The ids that a document can have, some hundreds at a time."""
    possible = [key for key in ids if is_text(key)]
    # At least one, so that an unknown collection is noticed.
    return [possible[start : start + MAX_PAGE_ROWS] for start in range(0, max(1, len(possible)), MAX_PAGE_ROWS)]
