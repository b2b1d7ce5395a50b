"""What is PostgreSQL's own: many processes, its loss and return, its set-up, and what a deployment gets wrong."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psycopg
import pytest
import structlog
from psycopg import sql

from nearshore.documents.requests import DocumentInput, UpsertAnswer, UpsertRequest
from nearshore.errors import CollectionNotFoundError, CommitUnknownError, NearshoreError, StorageFullError
from nearshore.records import Commit, Delete, WriteToken
from nearshore.store.base import Cursor, Store
from nearshore.store.errors import (
    StoreFailedError,
    StoreFormatError,
    StoreLockedError,
    StoreUnavailableError,
    StoreUrlError,
)
from nearshore.store.postgres import connections, schema
from nearshore.store.postgres.connections import Address
from nearshore.store.postgres.failures import translate
from nearshore.store.postgres.judging import Judgement, judge
from nearshore.store.postgres.listener import CHANNEL, Listener
from nearshore.store.postgres.store import PostgresStore
from nearshore.store.rows import UpsertRow, Write
from tests.engine import DIMENSIONS, Engine, packed
from tests.postgres import ABSENT, PostgresServer, database_of, programs, standby_missing
from tests.replica_world import open_replicas
from tests.stores import SPEC, PostgresFactory, open_postgres, upsert, walk, writer_held
from tests.waiting import WAIT_S, eventually

SECRET = "s3cret-Pässword"
Open = Callable[..., PostgresStore]


@pytest.fixture
def opener() -> Iterator[Open]:
    """open_postgres, whose stores are closed at the end."""
    opened: list[PostgresStore] = []

    def open_store(url: str, **options: Any) -> PostgresStore:
        opened.append(open_postgres(url, **options))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def url() -> str:
    """A database with the tables in it."""
    return PostgresFactory().url


@pytest.fixture(scope="module")
def fragile() -> Iterator[PostgresServer]:
    """A server that tests may stop; it runs when a test begins."""
    if programs() is None:
        pytest.skip(ABSENT)
    with PostgresServer() as server:
        yield server


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each in a transaction of its own; returns the rows of the last."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(sql.SQL(statement))
        return cursor.fetchall() if cursor.description else []


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


# Loss and return


def test_while_postgresql_is_away_calls_fail_soon_and_afterwards_they_work(
    fragile: PostgresServer, opener: Open
) -> None:
    """Reads and writes say that the store cannot be reached; nothing has to be restarted when it is back."""
    url = fragile.create_database()
    store = opener(url, connect_timeout_s=1.0)
    collection_id = store.create_collection(SPEC).id
    kept = store.write(collection_id, [upsert("kept")]).result().commit
    modes: tuple[Literal["fast", "immediate"], ...] = ("fast", "immediate")
    for mode in modes:
        fragile.stop(mode)
        calls: list[Callable[[], object]] = [
            store.heads,
            lambda: store.write(collection_id, [upsert("refused")]).result(),
            lambda: store.create_collection(replace(SPEC, name="refused")),
            lambda: walk(store, collection_id),
        ]
        for call in calls * 2:
            with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1") as refused:
                call()
            assert refused.value.remedy
        fragile.start()
        eventually(lambda: answers(store.heads))
        eventually(lambda: answers(lambda: store.write(collection_id, []).result()))
    assert [(item.id, item.position) for item in walk(store, collection_id)[0]] == [("kept", kept.position)]


def answers(call: Callable[[], object]) -> bool:
    """Whether the store answers."""
    try:
        call()
    except StoreUnavailableError:
        return False
    return True


def test_connections_that_died_while_idle_are_replaced_unnoticed(url: str, opener: Open) -> None:
    """After a fail-over or an idle time-out of a proxy, the first read and the first write succeed."""
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.heads(), range(40)))
    execute(url, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'nearshore'")
    assert store.heads() == {collection_id: Cursor()}
    assert store.write(collection_id, [upsert("a")]).result().commit.position == 1


def end_wait_for_standby(url: str, by: str = "pg_cancel_backend") -> None:
    """Wait until a commit waits for the standby, then end that."""
    waiting = "SELECT {}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()"
    eventually(lambda: bool(execute(url, waiting.format(by))))


@pytest.mark.parametrize("ended_by", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_commit_whose_outcome_is_not_known_says_so(fragile: PostgresServer, opener: Open, ended_by: str) -> None:
    """A lost connection or a cancelled wait for the standby at COMMIT is told as such; the request id settles it."""
    url = fragile.create_database()
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    with standby_missing(url):
        unknown = store.write(collection_id, [upsert("a")], "request", b"digest")
        end_wait_for_standby(url, ended_by)
        with pytest.raises(CommitUnknownError):
            unknown.result()
    eventually(lambda: store.find_request(collection_id, "request", b"digest") is not None)
    assert store.write(collection_id, [upsert("a")], "request", b"digest").result().commit.position == 1
    assert store.heads()[collection_id].position == 1


def test_a_repetition_is_acknowledged_only_when_the_first_write_is_durable(
    fragile: PostgresServer, opener: Open, tmp_path: Path
) -> None:
    """What is visible, but on no synchronous standby yet, is no answer to a retry, nor to that of an upsert."""
    url = fragile.create_database()
    with Engine(tmp_path, store=open_postgres(url)) as engine, ThreadPoolExecutor(1) as pool:
        name = pool.submit(engine.create, "texts").result()
        vector = np.ones((1, DIMENSIONS), np.float32)
        sent = UpsertRequest(name, [DocumentInput("a", "text")], packed(vector), request_id="request")
        collection_id = engine.store.get_collection("texts").id

        def upserted() -> UpsertAnswer:
            return engine.run(engine.documents.upsert(sent))

        calls: list[Callable[[], object]] = [
            upserted,
            upserted,
            lambda: engine.store.write(collection_id, [Delete("b")], "other", b"digest").result(),
            lambda: engine.store.write(collection_id, [Delete("b")], "other", b"digest").result(),
        ]
        with standby_missing(url):
            for call in calls:
                unknown = pool.submit(call)
                end_wait_for_standby(url)
                with pytest.raises(CommitUnknownError):
                    unknown.result()
        assert engine.store.heads()[collection_id].position == 2
        assert WriteToken.decode(pool.submit(upserted).result().write_token).position == 1


def test_closing_does_not_wait_for_a_missing_standby(fragile: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that hangs when the process ends is told as unknown, and what had not begun as not written."""
    monkeypatch.setattr("nearshore.store.writer.CLOSE_GRACE_S", 0.0)
    url = fragile.create_database()
    store = open_postgres(url)
    collection_id = store.create_collection(SPEC).id
    with standby_missing(url):
        hanging = store.write(collection_id, [upsert("a")])
        eventually(lambda: bool(execute(url, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")))
        queued = store.write(collection_id, [upsert("b")])
        closing = threading.Thread(target=store.close, daemon=True)
        closing.start()
        with pytest.raises(CommitUnknownError):
            hanging.result(WAIT_S)
        with pytest.raises(StoreUnavailableError, match="closed"):
            queued.result(WAIT_S)
        closing.join(WAIT_S)
        assert not closing.is_alive()
    store = open_postgres(url)
    assert store.heads()[collection_id].position == 1
    store.close()


def test_closing_does_not_wait_for_a_frozen_postgresql(
    fragile: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hangs is told that it was given up, and left behind if need be; what had not begun, as not written."""
    monkeypatch.setattr("nearshore.store.writer.CLOSE_GRACE_S", 0.0)
    monkeypatch.setattr("nearshore.store.writer.INTERRUPT_S", 0.1)
    url = fragile.create_database()
    store = open_postgres(url)
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    with fragile.frozen():
        hanging = store.write(collection_id, [upsert("b")])
        eventually(hanging.running)
        queued = store.write(collection_id, [upsert("c")])
        closing = threading.Thread(target=store.close, daemon=True)
        closing.start()
        with pytest.raises((CommitUnknownError, StoreUnavailableError)):  # the latter where its thread could be woken
            hanging.result(WAIT_S)
        with pytest.raises(StoreUnavailableError, match="closed"):
            queued.result(WAIT_S)
        closing.join(WAIT_S)
        assert not closing.is_alive()


# Silence


@pytest.fixture
def hasty(opener: Open, monkeypatch: pytest.MonkeyPatch) -> Open:
    """An opener of stores that give up a silent server soon."""
    monkeypatch.setattr(connections, "MARGIN_S", 0.2)
    return partial(opener, connect_timeout_s=1.0, statement_timeout_s=1.0)


def test_a_frozen_server_is_given_up(fragile: PostgresServer, hasty: Open) -> None:
    """Reads and writes fail with where to look instead of hanging, nothing is written, and all works after it."""
    store = hasty(fragile.create_database())
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    calls: list[Callable[[], object]] = [
        store.heads,
        lambda: store.write(collection_id, [upsert("b")]).result(),
        store.list_collections,
        lambda: store.create_collection(replace(SPEC, name="new")),
    ]
    with fragile.frozen(), ThreadPoolExecutor(1) as pool:
        for call in calls:
            error = pool.submit(call).exception(WAIT_S)
            assert type(error) is StoreUnavailableError
            assert error.remedy
    eventually(lambda: answers(store.heads))
    assert [collection.id for collection in store.list_collections()] == [collection_id]
    eventually(lambda: answers(lambda: store.write(collection_id, [upsert("c")]).result()))
    assert set(store.get_items(collection_id, ["a", "b", "c"])) == {"a", "c"}


def test_a_commit_on_a_frozen_server_is_of_unknown_outcome(fragile: PostgresServer, hasty: Open) -> None:
    """Its caller is told so, and the next write is made over another connection."""
    url = fragile.create_database()
    store = hasty(url)
    collection_id = store.create_collection(SPEC).id
    with standby_missing(url):
        unknown = store.write(collection_id, [upsert("a")], "request", b"digest")
        eventually(lambda: bool(execute(url, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")))
        with fragile.frozen(), pytest.raises(CommitUnknownError, match="no answer"):
            unknown.result(WAIT_S)
    eventually(lambda: answers(lambda: store.write(collection_id, [upsert("a")], "request", b"digest").result()))
    assert store.heads()[collection_id].position == 1


def test_a_commit_waits_for_its_standby_however_long(
    fragile: PostgresServer, hasty: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says that it is at work is not given up."""
    said: queue.Queue[bool] = queue.Queue()
    is_at_work = Address.is_at_work

    def told(address: Address, session: tuple[Any, ...]) -> bool:
        said.put(is_at_work(address, session))
        return True

    monkeypatch.setattr(Address, "is_at_work", told)
    url = fragile.create_database()
    store = hasty(url)
    collection_id = store.create_collection(SPEC).id
    with standby_missing(url):
        waiting = store.write(collection_id, [upsert("a")])
        assert [said.get(timeout=WAIT_S) for _ in range(3)] == [True] * 3
        assert not waiting.done()
    assert waiting.result(WAIT_S).commit.position == 1
    assert not is_at_work(Address.of(url, 1.0, 1.0), (0, None))


def test_a_frozen_server_is_heard_of_no_more(
    fragile: PostgresServer, hasty: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener asks a server that has told nothing for long, and listens anew to one that does not answer."""
    monkeypatch.setattr("nearshore.store.postgres.listener._ASK_AFTER_S", 0.1)
    url = fragile.create_database()
    one, two = hasty(url), hasty(url)
    collection_id = one.create_collection(SPEC).id
    heard = threading.Semaphore(0)
    two.watch(lambda _: heard.release())
    listening = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT 1' AND datname = current_database()"
    eventually(lambda: len(execute(url, listening)) == 2)
    with structlog.testing.capture_logs() as logs, fragile.frozen():
        eventually(lambda: bool(logs))
    assert {entry["event"] for entry in logs} == {"store does not hear of commits"}
    eventually(lambda: answers(lambda: one.write(collection_id, []).result()) and heard.acquire(timeout=0.05))


def test_closing_does_not_wait_for_a_frozen_server(fragile: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it may be silent, a commit that hangs on it when the process ends is told as unknown soon."""
    monkeypatch.setattr("nearshore.store.writer.CLOSE_GRACE_S", 0.0)
    monkeypatch.setattr("nearshore.store.postgres.transactions._CANCEL_TIMEOUT_S", 0.2)
    url = fragile.create_database()
    store = open_postgres(url, statement_timeout_s=3_600.0)
    collection_id = store.create_collection(SPEC).id
    with standby_missing(url):
        hanging = store.write(collection_id, [upsert("a")])
        eventually(lambda: bool(execute(url, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")))
        with fragile.frozen():
            closing = threading.Thread(target=store.close, daemon=True)
            closing.start()
            with pytest.raises(CommitUnknownError):
                hanging.result(WAIT_S)
            closing.join(WAIT_S)
            assert not closing.is_alive()


# Mistakes


def test_a_mistake_with_one_collection_leaves_the_others_their_answers(
    url: str, opener: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a group over three collections the one that meets a bug fails, in the log too; the others are written."""
    store = opener(url)
    before, wrong, after = (store.create_collection(replace(SPEC, name=name)).id for name in ("a", "b", "c"))

    def judge_wrongly(writes: Sequence[Write], commit: Commit, *arguments: Any) -> Judgement:
        if commit.collection_id == wrong:
            raise RuntimeError("a mistake")
        return judge(writes, commit, *arguments)

    monkeypatch.setattr("nearshore.store.postgres.commits.judge", judge_wrongly)
    with structlog.testing.capture_logs() as logs:
        with writer_held(store, before):
            writes = [store.write(each, [upsert("a")]) for each in (before, wrong, after)]
        assert [writes[0].result().commit.position, writes[2].result().commit.position] == [2, 1]
        with pytest.raises(NearshoreError, match="made a mistake"):
            writes[1].result()
    assert [entry["log_level"] for entry in logs] == ["error"]
    monkeypatch.undo()
    assert store.write(wrong, [upsert("a")]).result().commit.position == 1


def test_a_session_that_is_ended_after_its_commit_does_not_deny_it(opener: Open) -> None:
    """PostgreSQL may answer COMMIT and end the session in one breath: no call, write or other, calls that a failure."""
    if programs() is None:
        pytest.skip(ABSENT)
    with PostgresServer(options=["commit_delay = 100000", "commit_siblings = 0"]) as server:
        url = server.create_database()
        store = opener(url)
        collection_id = store.create_collection(SPEC).id
        ending = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE query = 'COMMIT' AND state = 'active' AND application_name = 'nearshore'"""
        names = map(str, itertools.count())
        calls: list[Callable[[], object]] = [
            lambda: store.write(collection_id, [upsert("a")]).result(),
            lambda: store.create_collection(replace(SPEC, name=next(names))),
        ]
        with server.connect() as admin, ThreadPoolExecutor(1) as pool:
            for call in calls:
                failures: list[BaseException] = []
                while len(failures) < 3:
                    outcome = pool.submit(call)
                    while not outcome.done():
                        admin.execute(ending)
                    failures.extend(filter(None, [outcome.exception()]))
                assert [type(failure) for failure in failures] == [CommitUnknownError] * 3
        assert store.heads()[collection_id].position


def test_an_error_at_the_writing_statement_writes_nothing(url: str, opener: Open) -> None:
    """What PostgreSQL refuses in mid-transaction, a full disk say, is refused as a whole, and the next write works."""
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    execute(
        url,
        """CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END$$""",
        "CREATE TRIGGER fail BEFORE INSERT ON items EXECUTE FUNCTION fail()",
    )
    with pytest.raises(StorageFullError, match="PostgreSQL is full"):
        store.write(collection_id, [upsert("a")], "request").result()
    execute(url, "DROP TRIGGER fail ON items")
    assert store.heads()[collection_id] == Cursor()
    assert store.write(collection_id, [upsert("a")], "request").result().commit.position == 1


@pytest.mark.parametrize(
    ("code", "remedy"),
    [("53200", "more memory"), ("53400", "Raise that limit"), ("53000", "Raise that limit"), ("25P04", "ALTER ROLE")],
)
def test_a_limit_that_is_met_is_not_called_a_full_disk(url: str, opener: Open, code: str, remedy: str) -> None:
    """Memory, limits and time that ran out are STORE_UNAVAILABLE, each with what to do about it."""
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    execute(
        url,
        f"""CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'too much' USING ERRCODE = '{code}'; END$$""",
        "CREATE TRIGGER fail BEFORE INSERT ON items EXECUTE FUNCTION fail()",
    )
    with pytest.raises(StoreUnavailableError, match="too much") as refused:
        store.write(collection_id, [upsert("a")]).result()
    assert remedy in refused.value.remedy


def test_an_error_that_is_not_known_leaves_replicas_their_views(url: str, opener: Open, tmp_path: Path) -> None:
    """Whatever PostgreSQL says of a read (here it divides by zero): views serve on, the log tells, and it heals."""
    store, deaths, held_up = opener(url), list[BaseException](), "following is held up"
    with structlog.testing.capture_logs() as logs:
        replicas = open_replicas(store, tmp_path, deaths)
        replica = replicas.create(SPEC)
        replica.applied(store.write(replica.collection.id, [upsert("a")]).result().commit.token).result(WAIT_S)
        broken = "CREATE VIEW commits AS SELECT * FROM whole WHERE pos / 0 = 0"
        execute(url, "ALTER TABLE commits RENAME TO whole", broken)
        eventually(lambda: bool(deaths) or any(held_up in line["event"] for line in logs))
        assert not deaths
        assert replicas.get(SPEC.name).count()[1] == 1
        with pytest.raises(StoreFailedError, match="22012"):
            store.write(replica.collection.id, [upsert("b")]).result()
        execute(url, "DROP VIEW commits", "ALTER TABLE whole RENAME TO commits")
        replica.applied(store.write(replica.collection.id, [upsert("b")]).result().commit.token).result(WAIT_S)
        replicas.close()
    assert not deaths
    assert ["22012" in line["detail"] for line in logs if held_up in line["event"]] == [True]


# Restores


def test_a_database_in_the_middle_of_a_restore_is_not_read(url: str, opener: Open) -> None:
    """While pg_restore has not yet made the indexes, rows and collections may be missing: nothing is said of them."""
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    execute(url, "DROP INDEX items_feed")
    calls: list[Callable[[], object]] = [
        store.heads,
        lambda: store.read_feed(collection_id, Cursor()),
        lambda: store.write(collection_id, [Delete("a")]).result(),
        store.list_collections,
        lambda: store.create_collection(replace(SPEC, name="new")),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError, match="being restored"):
            call()
    execute(url, "CREATE TABLE kept AS SELECT * FROM collections", "DELETE FROM collections")
    calls.append(lambda: store.commit_tag(collection_id, 1))
    calls.append(lambda: store.get_collection(SPEC.name))
    calls.append(lambda: store.get_items(collection_id, ["a"]))
    for call in calls:
        with pytest.raises(StoreUnavailableError, match="being restored"):
            call()
    execute(url, "INSERT INTO collections SELECT * FROM kept", "CREATE INDEX items_feed ON items(collection, pos, key)")
    assert len(walk(store, collection_id)[0]) == 1


def test_a_store_that_is_opened_in_the_middle_of_a_restore_is_to_wait(postgres_url: str, opener: Open) -> None:
    """Tables without rows are no other program's: the store cannot be opened yet, and can be at the restore's end."""
    factory = PostgresFactory()
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    store.close()
    dump = factory.server.folder / "dump"
    factory.server.run("pg_dump", "--format=custom", "--file", dump, factory.url)

    def restore(*sections: str) -> None:
        options = [f"--section={section}" for section in sections]
        factory.server.run("pg_restore", "--dbname", postgres_url, *options, dump)

    restore("pre-data")
    with pytest.raises(StoreUnavailableError, match="being restored"):
        opener(postgres_url)
    restore("data", "post-data")
    assert len(walk(opener(postgres_url), collection_id)[0]) == 1


def test_a_store_survives_a_restore_beneath_it(opener: Open) -> None:
    """After the database is set back, a running store goes on from there, and no lost collection's id comes back."""
    factory = PostgresFactory()
    factory.back_up()
    store = opener(factory.url)
    lost = store.create_collection(SPEC).id
    store.write(lost, [upsert("a")]).result()
    factory.restore()
    eventually(lambda: answers(store.heads))
    assert store.heads() == {}
    with pytest.raises(CollectionNotFoundError):
        store.write(lost, [upsert("a")]).result()
    assert store.create_collection(SPEC).id > lost


# Schema


def migrations(monkeypatch: pytest.MonkeyPatch, *more: schema.Migration) -> None:
    """Let this process be of a later release."""
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *more))


def test_the_release_before_runs_on_a_compatible_schema(
    url: str, opener: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that only expands lets both releases run, before and after it; a failed one leaves no trace."""
    old = opener(url)
    collection_id = old.create_collection(SPEC).id
    with monkeypatch.context() as later:
        migrations(later, schema.Migration(1, ("CREATE TABLE extra(x int)", "INSERT INTO missing VALUES(1)")))
        with pytest.raises(NearshoreError):
            opener(url)
    with monkeypatch.context() as later:
        migrations(later, schema.Migration(1, ("CREATE TABLE extra(x int)",)))
        for _ in range(2):
            opener(url).write(collection_id, [upsert("a")]).result()
    old.write(collection_id, [upsert("b")]).result()
    assert len(walk(opener(url), collection_id)[0]) == 2  # after a rollback of the release
    assert execute(url, "SELECT version, compatible FROM nearshore_schema") == [(2, 1)]


def test_an_incompatible_schema_is_refused(url: str, opener: Open) -> None:
    """A database that a later release made unreadable for this one names the versions and stays as it is."""
    execute(url, "UPDATE nearshore_schema SET version = 99, compatible = 98")
    with pytest.raises(StoreFormatError, match="version 99") as refused:
        opener(url)
    assert refused.value.metadata == {"found": "99", "known": str(len(schema.MIGRATIONS))}


def test_tables_of_another_program_are_left_alone(postgres_url: str, opener: Open) -> None:
    """A database that has an `items` of its own is refused, and nothing is made in it."""
    execute(postgres_url, "CREATE TABLE items(song text)")
    with pytest.raises(StoreFormatError, match="another program"):
        opener(postgres_url)
    tables = execute(postgres_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert tables == [("items",)]


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: PostgresServer, opener: Open) -> None:
    """An encoding other than UTF8 is refused with the statement that makes a better database."""
    url = f"{postgres_server.url('latin')}"
    execute(
        postgres_server.url(),
        "DROP DATABASE IF EXISTS latin",
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
    )
    with pytest.raises(StoreFormatError, match="ENCODING 'UTF8'"):
        opener(url)


# What a deployment gets wrong


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cret@host/database",
        "postgresql://user:s3cret@host",
        "postgresql://user:s3cret@host:s3cret/database",
        "postgresql://user:s3cret%zz@host/database",
        "postgresql://user:s3cret@host/database?s3cret=1",
    ],
)
def test_an_unusable_url_is_refused_without_repeating_it(url: str, opener: Open) -> None:
    """Neither message nor remedy shows any part of the password."""
    with pytest.raises(StoreUrlError) as refused:
        opener(url)
    assert "s3cret" not in f"{refused.value} {refused.value.metadata} {refused.value.__cause__}"


def test_a_server_that_does_not_answer_is_told_with_its_place(opener: Open) -> None:
    """A closed port is STORE_UNAVAILABLE with host, port, database and user, never the password."""
    with pytest.raises(StoreUnavailableError) as refused:
        opener("postgresql://me:s3cret@127.0.0.1:1/passages", connect_timeout_s=1.0)
    assert "postgresql://me@127.0.0.1:1/passages" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.fixture
def role(postgres_server: PostgresServer, postgres_url: str) -> Iterator[str]:
    """A role that needs a password."""
    hba = postgres_server.data / "pg_hba.conf"
    before = hba.read_text()
    execute(postgres_url, f"CREATE ROLE careful LOGIN PASSWORD '{SECRET}'")
    hba.write_text(f"host all careful 127.0.0.1/32 scram-sha-256\n{before}")
    execute(postgres_url, "SELECT pg_reload_conf()")
    yield "careful"
    hba.write_text(before)
    execute(postgres_url, "SELECT pg_reload_conf()", "DROP OWNED BY careful", "DROP ROLE careful")


def as_role(url: str, role: str, password: str) -> str:
    """The URL with another user."""
    return url.replace("postgres@", f"{role}:{password}@")


def test_refused_credentials_and_missing_rights_say_what_to_do(
    postgres_server: PostgresServer, postgres_url: str, role: str, opener: Open
) -> None:
    """Wrong password, no such database, no right to make tables: STORE_URL, each with its remedy, no secret told."""
    quoted = SECRET.replace("ä", "%C3%A4")
    cases = {
        as_role(postgres_url, role, "s3cret-wrong"): "Secret",
        as_role(postgres_server.url("nowhere"), role, quoted): "CREATE DATABASE",
        as_role(postgres_url, role, quoted): "GRANT",
    }
    for url, remedy in cases.items():
        with pytest.raises(StoreUrlError) as refused:
            opener(url)
        assert remedy in refused.value.remedy
        assert "s3cret" not in str(refused.value)
    execute(postgres_url, f"GRANT ALL ON SCHEMA public TO {role}")
    store = opener(as_role(postgres_url, role, quoted))
    assert store.write(store.create_collection(SPEC).id, [upsert("a")]).result().commit.position == 1


def test_a_changed_password_ends_no_connection(postgres_url: str, role: str, opener: Open) -> None:
    """A store that is open reads and writes on; one that opens needs the new password, and is told so."""
    execute(postgres_url, f"GRANT ALL ON SCHEMA public TO {role}")
    url = as_role(postgres_url, role, SECRET.replace("ä", "%C3%A4"))
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    execute(postgres_url, f"ALTER ROLE {role} PASSWORD 'other'")
    store.write(collection_id, [upsert("b")]).result()
    assert len(walk(store, collection_id)[0]) == 2
    with pytest.raises(StoreUrlError, match="refuses the password"):
        opener(url)
    assert Address.of(url, 1.0, 1.0).is_at_work((0, None))  # a slow commit is not given up over that
    replaced = opener(as_role(postgres_url, role, "other"))
    assert len(walk(replaced, collection_id)[0]) == 2


def test_too_many_connections_say_which_limits_to_look_at(postgres_url: str, role: str, opener: Open) -> None:
    """A server without a free connection is STORE_UNAVAILABLE, naming store.max_connections and the server's limits."""
    execute(postgres_url, f"GRANT ALL ON SCHEMA public TO {role}", f"ALTER ROLE {role} CONNECTION LIMIT 0")
    with pytest.raises(StoreUnavailableError, match=r"store\.max_connections"):
        opener(as_role(postgres_url, role, SECRET.replace("ä", "%C3%A4")))


def test_a_read_only_server_is_not_written_to(url: str, opener: Open) -> None:
    """A standby, or a primary fenced off with default_transaction_read_only, is refused and says so."""
    execute(url, f"ALTER DATABASE {database_of(url)} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailableError, match="read-only"):
        opener(url)


def test_settings_of_role_and_database_change_nothing(url: str, opener: Open) -> None:
    """Time-outs, isolation and asynchronous commit that an administrator set for all do not reach our sessions."""
    name = database_of(url)
    for setting in (
        "default_transaction_isolation = 'serializable'",
        "synchronous_commit = off",
        "statement_timeout = '300ms'",
        "TimeZone = 'Asia/Tokyo'",
        "enable_indexscan = off",
    ):
        execute(url, f"ALTER DATABASE {name} SET {setting}")
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    commit = store.write(collection_id, [upsert("a")]).result().commit
    page = store.read_feed(collection_id, Cursor())
    assert (page.head, page.head_at) == (Cursor(1, commit.tag), commit.at)
    assert "synchronous_commit=on" in store.durability
    assert "no synchronous standby" in store.durability


def test_another_search_path_changes_nothing_beneath_a_running_store(url: str, opener: Open) -> None:
    """Connections made after it was changed find the same tables, those of readers and of the writer."""
    store = opener(url)
    collection_id = store.create_collection(SPEC).id
    execute(
        url,
        'CREATE SCHEMA "Other one"',
        'CREATE TABLE "Other one".collections (LIKE collections)',
        f"""ALTER DATABASE {database_of(url)} SET search_path = '"Other one"', public""",
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'nearshore'",
    )
    assert [collection.id for collection in store.list_collections()] == [collection_id]
    assert store.write(collection_id, [upsert("a")]).result().commit.position == 1
    assert [collection.id for collection in opener(url).list_collections()] == [collection_id]


def test_a_url_may_name_the_schema(url: str, opener: Open) -> None:
    """Several nearshores live in one database, each in the schema of its URL, whatever is in the others."""
    execute(url, 'CREATE SCHEMA "Other one"')
    urls = (url, f"{url}?options=-csearch_path%3D%22Other%5C%20one%22")
    made = [opener(each).create_collection(SPEC).id for each in urls]
    assert [[each.id for each in opener(each).list_collections()] for each in urls] == [[each] for each in made]


def test_tables_that_the_search_path_misses_are_not_begun_anew(url: str, opener: Open) -> None:
    """A path past our tables is refused with both ways out, unless the URL gives it; so is one to nowhere."""
    opener(url).create_collection(SPEC)
    execute(url, "CREATE SCHEMA fresh", f"ALTER DATABASE {database_of(url)} SET search_path = fresh")
    with pytest.raises(StoreUrlError, match="leads to schema fresh, but schema public has") as refused:
        opener(url)
    assert "search_path%3Dpublic" in refused.value.remedy
    assert len(opener(f"{url}?options=-csearch_path%3Dpublic").list_collections()) == 1
    assert opener(f"{url}?options=-csearch_path%3Dfresh").list_collections() == []
    with pytest.raises(StoreUrlError, match="no schema"):
        opener(f"{url}?options=-csearch_path%3Dmissing")


def test_a_server_that_can_lose_writes_is_told_of_at_start(fragile: PostgresServer, opener: Open) -> None:
    """Both fsync and full_page_writes that are off are warned of, with what to do."""
    url = fragile.create_database()
    settings = ("fsync", "full_page_writes")
    for setting in settings:
        execute(url, f"ALTER SYSTEM SET {setting} = off")
    execute(url, "SELECT pg_reload_conf()")
    with structlog.testing.capture_logs() as logs:
        eventually(lambda: "fsync=off" in opener(url).durability)
    for setting in settings:
        execute(url, f"ALTER SYSTEM RESET {setting}")
    execute(url, "SELECT pg_reload_conf()")
    warned = {entry["setting"] for entry in logs if entry["event"] == "PostgreSQL can lose acknowledged writes"}
    assert warned == {"fsync = off", "full_page_writes = off"}


def test_ids_and_names_that_no_text_can_be_are_just_not_there(url: str, opener: Open) -> None:
    """NUL and lone surrogates in what is looked for find nothing; they hurt no other."""
    store: Store = opener(url)
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    odd = ["nul\0", "\ud800", "a"]
    assert set(store.get_items(collection_id, odd)) == {"a"}
    assert set(store.get_outlines(collection_id, odd)) == {"a"}
    assert store.list_ids(collection_id, odd) == ["a"]
    with pytest.raises(CollectionNotFoundError):
        store.get_collection("nul\0")


@pytest.mark.parametrize("state", ["53200", "53400", "55P03", "25P03", "25P04", "42703", "XX000"])
def test_a_refusal_speaks_of_its_own_call_alone(state: str) -> None:
    """A run that has written for hours ends with it: what it wrote before is there, whatever became of this call."""
    error = translate(psycopg.errors.lookup(state)("refused"), "db", "writing documents")
    assert "This call wrote nothing" in error.remedy
    assert "Nothing was written" not in error.remedy
