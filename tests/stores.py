"""Stores for tests: how to open one of each kind, and small helpers."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from nearshore.records import CollectionSpec, Document, Item, MetadataValue, Upsert
from nearshore.store.base import Cursor, FeedPage, Store, Walk
from nearshore.store.errors import StoreUnavailableError
from nearshore.store.postgres.store import PostgresStore
from nearshore.store.sqlite import SqliteStore
from nearshore.store.writer import Limits
from tests.postgres import PostgresServer, shared_server

SPEC = CollectionSpec("passages", 3)
Open = Callable[..., PostgresStore]
"""open_postgres, with any of its options."""
LIMITS = Limits(1_000, 4 << 20, 1 << 24)


class StoreFactory(Protocol):
    """Opens one store again and again, and sets it back to an earlier state as a restored backup does."""

    def open(self, max_transaction_rows: int = 1_000, max_queued_bytes: int = 1 << 24) -> Store:
        """Open the store, empty at first."""

    def back_up(self) -> None:
        """Remember the present state. The store must be closed."""

    def restore(self) -> None:
        """Go back to what back_up remembered. The store must be closed."""


class SqliteFactory:
    """Stores in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self._backup = folder / "backup"

    def open(self, max_transaction_rows: int = 1_000, max_queued_bytes: int = 1 << 24) -> SqliteStore:
        """See StoreFactory."""
        return SqliteStore.open(
            self.folder,
            max_transaction_rows=max_transaction_rows,
            max_transaction_bytes=4 << 20,
            max_queued_bytes=max_queued_bytes,
        )

    def back_up(self) -> None:
        """See StoreFactory."""
        shutil.copytree(self.folder, self._backup)

    def restore(self) -> None:
        """See StoreFactory."""
        shutil.rmtree(self.folder)
        shutil.copytree(self._backup, self.folder)


class PostgresFactory:
    """Stores in one database of the server that all tests share."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: not used, for there are no files."""
        self.server = shared_server()
        self.url = self.server.create_database(copy_of=_migrated(self.server))
        self._backup = ""

    def open(self, max_transaction_rows: int = 1_000, max_queued_bytes: int = 1 << 24) -> PostgresStore:
        """See StoreFactory."""
        return open_postgres(self.url, Limits(max_transaction_rows, 4 << 20, max_queued_bytes))

    def back_up(self) -> None:
        """See StoreFactory."""
        self._backup = self.server.create_database(copy_of=self.url)

    def restore(self) -> None:
        """See StoreFactory."""
        self.server.create_database(copy_of=self._backup, url=self.url)


def open_postgres(
    url: str, limits: Limits = LIMITS, connect_timeout_s: float = 5.0, statement_timeout_s: float = 60.0
) -> PostgresStore:
    """A store at url, with few connections."""
    return PostgresStore.open(
        url,
        max_connections=4,
        connect_timeout_s=connect_timeout_s,
        statement_timeout_s=statement_timeout_s,
        limits=limits,
    )


@functools.cache
def _migrated(server: PostgresServer) -> str:
    """A database with the tables in it, to be copied."""
    url = server.create_database()
    open_postgres(url).close()
    return url


FACTORIES: Mapping[str, Callable[[Path], StoreFactory]] = {"sqlite": SqliteFactory, "postgresql": PostgresFactory}


def upsert(key: str, text: str = "text", metadata: Mapping[str, MetadataValue] | None = None) -> Upsert:
    """A small document whose vector and hash follow from its text."""
    vector = np.array([len(text), sum(map(ord, text)) % 997, 1.0], dtype=np.float32)
    return Upsert(Document(key, text, metadata=metadata or {}), vector, repr(text).encode()[:32])


@contextmanager
def writer_held(store: Store, collection_id: int) -> Iterator[None]:
    """Keep the store's committing thread busy, so that what is written within the block becomes one group."""
    entered, leave = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        entered.set()
        leave.wait()

    store.watch(hold)
    store.write(collection_id, []).result()
    entered.wait()
    try:
        yield
    finally:
        leave.set()


def walk(
    store: Store, collection_id: int, cursor: Cursor | None = None, limit: int = 1_000
) -> tuple[list[Item], FeedPage]:
    """All items of one walk from cursor, and its last page."""
    items: list[Item] = []
    resume: Walk | None = None
    while True:
        page = store.read_feed(collection_id, cursor or Cursor(), resume, limit)
        items.extend(page.items)
        resume = page.next
        if resume is None:
            return items, page


def live_texts(items: list[Item]) -> dict[str, str]:
    """The texts that a follower ends with when it applies these items in order."""
    state: dict[str, str] = {}
    for item in items:
        if item.document is None:
            state.pop(item.id, None)
        else:
            state[item.id] = item.document.text
    return state


def answers(call: Callable[[], object]) -> bool:
    """Whether the store answers."""
    try:
        call()
    except StoreUnavailableError:
        return False
    return True
