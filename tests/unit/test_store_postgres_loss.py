"""A PostgreSQL that is lost, returns, falls silent or waits for a standby, and one that may lose what it holds."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import structlog

from nearshore.documents.requests import DocumentInput, UpsertAnswer, UpsertRequest
from nearshore.errors import CommitUnknownError
from nearshore.records import Delete, WriteToken
from nearshore.store.base import Cursor
from nearshore.store.errors import StoreUnavailableError
from nearshore.store.postgres import connections
from nearshore.store.postgres.connections import Address
from tests.engine import DIMENSIONS, Engine, packed
from tests.postgres import ABSENT, PostgresServer, execute, programs, standby_missing
from tests.stores import SPEC, Open, answers, open_postgres, upsert, walk
from tests.waiting import WAIT_S, eventually


@pytest.fixture(scope="module")
def fragile() -> Iterator[PostgresServer]:
    """A server that tests may stop; it runs when a test begins."""
    if programs() is None:
        pytest.skip(ABSENT)
    with PostgresServer() as server:
        yield server


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
