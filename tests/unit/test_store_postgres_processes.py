"""PostgreSQL beneath many processes: one history, each hears of the others, and no lock is kept for ever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import structlog

from nearshore.errors import CollectionNotFoundError, CommitUnknownError
from nearshore.records import Delete
from nearshore.store.base import Cursor
from nearshore.store.errors import StoreLockedError
from nearshore.store.postgres import connections
from nearshore.store.postgres.connections import Address
from nearshore.store.postgres.judging import Judgement, judge
from nearshore.store.postgres.listener import CHANNEL, Listener
from nearshore.store.rows import UpsertRow
from tests.postgres import execute
from tests.stores import SPEC, Open, upsert, walk, writer_held
from tests.waiting import WAIT_S, eventually

# Many processes


def test_stores_that_start_together_make_the_tables_once(postgres_url: str, opener: Open) -> None:
    """Eight processes that find an empty database all open it, and share what it then holds."""
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(opener, [postgres_url] * 8))
    collection = stores[0].create_collection(SPEC)
    assert [store.get_collection(SPEC.name) for store in stores] == [collection] * 8


def test_stores_continue_each_others_positions(url: str, opener: Open) -> None:
    """Two processes write one history: positions are dense, and each reads the other's rows and requests."""
    one, two = opener(url), opener(url)
    collection_id = one.create_collection(SPEC).id
    first = one.write(collection_id, [upsert("a"), upsert("b")], "request", b"digest").result()
    second = two.write(collection_id, [Delete("a"), upsert("c")]).result()
    assert (first.commit.position, second.commit.position, second.deleted) == (1, 2, 1)
    assert two.write(collection_id, [upsert("a")], "request", b"digest").result() == first
    assert set(one.get_items(collection_id, ["a", "b", "c"])) == {"b", "c"}
    assert one.heads() == two.heads() == {collection_id: Cursor(2, second.commit.tag)}


def test_watchers_hear_of_other_stores(url: str, opener: Open) -> None:
    """What one process commits, creates or deletes calls the watchers of another, with the collection's id."""
    one, two = opener(url), opener(url)
    heard: queue.Queue[int] = queue.Queue()
    one.watch(heard.put)
    first = two.create_collection(SPEC).id
    eventually(lambda: two.write(first, []).result() is not None and not heard.empty())  # it listens now
    second = two.create_collection(replace(SPEC, name="second")).id
    while heard.get(timeout=WAIT_S) != second:
        pass
    two.write(first, []).result()
    assert heard.get(timeout=WAIT_S) == first
    two.delete_collection(second)
    assert heard.get(timeout=WAIT_S) == second


def test_listening_is_taken_up_again(url: str, opener: Open) -> None:
    """When the listening connection is ended, commits of others are heard of again soon."""
    one, two = opener(url), opener(url)
    collection_id = one.create_collection(SPEC).id
    heard = threading.Semaphore(0)
    two.watch(lambda _: heard.release())
    eventually(lambda: one.write(collection_id, []).result() is not None and heard.acquire(timeout=0.05))
    execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    eventually(lambda: one.write(collection_id, []).result() is not None and heard.acquire(timeout=0.05))


def test_listening_outlives_any_mistake(url: str) -> None:
    """Notifications of others that are no id are passed over, and an error of any kind ends no thread."""
    heard: queue.Queue[int] = queue.Queue()

    def hear(collection_id: int) -> None:
        heard.put(collection_id)
        if collection_id == 1:
            raise RuntimeError("a mistake")

    def arrives(payload: str) -> bool:
        execute(url, f"NOTIFY {CHANNEL}, '{payload}'")
        with suppress(queue.Empty):
            return heard.get(timeout=0.05) == int(payload)
        return False

    listener = Listener(Address.of(url, 5.0, 60.0), lambda: 0, hear)
    try:
        eventually(lambda: arrives("2"))
        with structlog.testing.capture_logs() as logs:
            for odd in ("9" * 5_000, "x", "²"):
                execute(url, f"NOTIFY {CHANNEL}, '{odd}'")
            eventually(lambda: arrives("3"))
            assert logs == []
            eventually(lambda: arrives("1"))
            eventually(lambda: arrives("4"))
        assert {entry["event"] for entry in logs} == {"store listener met a mistake"}
    finally:
        listener.close()


def test_a_deleted_collection_is_gone_for_every_store(url: str, opener: Open) -> None:
    """A process that wrote to a collection is told that another one deleted it, and its rows are removed."""
    one, two = opener(url), opener(url)
    collection_id = one.create_collection(SPEC).id
    for store in (one, two):
        store.write(collection_id, [upsert(str(number)) for number in range(1_200)], "request").result()
    two.delete_collection(collection_id)
    with pytest.raises(CollectionNotFoundError):
        one.write(collection_id, [upsert("a")]).result()
    tables = ("items", "commits", "requests", "purges")
    eventually(lambda: not any(execute(url, f"SELECT 1 FROM {table} LIMIT 1") for table in tables))


# Locks


@contextmanager
def locked(url: str, collection_id: int) -> Iterator[None]:
    """An orphan prepared transaction holds the collection's row."""
    lock = f"SELECT 1 FROM collections WHERE id = {collection_id} FOR UPDATE"
    execute(url, f"BEGIN; {lock}; PREPARE TRANSACTION 'orphan'")
    try:
        yield
    finally:
        execute(url, "ROLLBACK PREPARED 'orphan'")


def test_a_collection_that_another_session_locks_holds_up_no_other(
    url: str, opener: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writes fail with STORE_LOCKED and where to look, those of another collection go on, reads too."""
    monkeypatch.setattr("nearshore.store.postgres.connections.WRITER", connections.WRITER.replace("'4s'", "'200ms'"))
    store = opener(url)
    stuck, free = (store.create_collection(replace(SPEC, name=name)).id for name in ("stuck", "free"))
    store.write(stuck, [upsert("a")]).result()
    with locked(url, stuck):
        with writer_held(store, free):
            writes = [store.write(stuck, [upsert("a")]), store.write(free, [upsert("a")])]
        for _ in range(2):
            with pytest.raises(StoreLockedError, match="pg_prepared_xacts"):
                writes[0].result()
            writes[0] = store.write(stuck, [upsert("b")])
        assert writes[1].result().commit.position == 2
        assert len(walk(store, stuck)[0]) == 1
        writes[0].exception()
    assert store.write(stuck, [upsert("b")]).result().commit.position == 2


@pytest.mark.parametrize("sending", [False, True])
def test_a_process_that_stops_in_a_transaction_does_not_keep_its_lock(
    url: str, opener: Open, monkeypatch: pytest.MonkeyPatch, sending: bool
) -> None:
    """PostgreSQL ends its session before other writers give up; its own write is made later, or told as unknown."""
    stopping, other = opener(url), opener(url)
    collection_id = stopping.create_collection(SPEC).id
    stopped, goes_on = threading.Event(), threading.Event()

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            assert goes_on.wait(WAIT_S)

    class StoppingRows(dict[str, UpsertRow]):
        """Rows in whose preparation the process stops."""

        def values(self) -> Any:
            stop()
            return super().values()

    def judge_later(*arguments: Any) -> Judgement:
        judgement = judge(*arguments)
        if sending:
            judgement.upserts = StoppingRows(judgement.upserts)
        else:
            stop()
        return judgement

    monkeypatch.setattr("nearshore.store.postgres.commits.judge", judge_later)
    late = stopping.write(collection_id, [upsert("late")])
    assert stopped.wait(WAIT_S)
    try:
        assert other.write(collection_id, [upsert("a")]).result().commit.position == 1
    finally:
        goes_on.set()
    error = late.exception(WAIT_S)
    assert error is None or isinstance(error, CommitUnknownError)  # its COMMIT may be on its way when it hears of it
    assert stopping.heads()[collection_id].position == (1 if error else 2)


def test_a_delete_of_very_many_documents_is_given_its_time(
    url: str, opener: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is not taken for stopped while it judges one call with more rows than it can within the time."""
    collection_id = opener(url).create_collection(SPEC).id
    monkeypatch.setattr(connections, "WRITER", connections.WRITER.replace("'3s'", "'20ms'"))
    store = opener(url)
    deletes = [Delete(str(number)) for number in range(100_000)]
    assert store.write(collection_id, deletes).result().commit.position == 1


def test_a_transaction_that_others_keep_open_holds_up_nothing(url: str, opener: Open) -> None:
    """An open transaction with a snapshot and rows of its own delays neither positions nor the feed."""
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    with psycopg.connect(url) as foreign:
        foreign.execute("CREATE TABLE elsewhere(x int)")
        foreign.execute("INSERT INTO elsewhere SELECT pos FROM items")
        for number in range(3):
            store.write(collection_id, [upsert(str(number))]).result()
        items, page = walk(store, collection_id)
        foreign.rollback()
    assert (len(items), page.head.position) == (3, 3)
