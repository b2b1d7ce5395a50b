"""The running whole: threads, waiting for writes, collections that come and go, and how it ends."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearshore.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    CorruptionError,
    HistoryChangedError,
    ServiceError,
    StorageFullError,
    UnavailableError,
    WriteTokenExpiredError,
)
from nearshore.records import Collection, CollectionSpec, IndexKind, WriteToken, new_tag
from nearshore.replica import IndexLoadingError, Replica, ReplicaClosedError, Replicas
from nearshore.replica.builder import Builder
from nearshore.replica.mirror import Mirror
from nearshore.store.sqlite import SqliteStore
from tests.replica_world import (
    SMALL,
    SwitchableStore,
    check,
    delete,
    document,
    open_replicas,
    open_store,
    spec,
    upsert,
)
from tests.stores import writer_held
from tests.waiting import WAIT_S, eventually

_HEALTHY: list[BaseException] = []


class Running:
    """A store, its replicas and one collection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inner = open_store(folder)
        self.store = SwitchableStore(self.inner)
        self.deaths: list[BaseException] = []
        self.replicas = open_replicas(self.store.store, folder, self.deaths)
        self.replica = self.replicas.create(spec())

    def write(self, *keys: int, version: int = 0) -> WriteToken:
        changes = [upsert(key, version) for key in keys]
        return self.inner.write(self.replica.collection.id, changes).result(WAIT_S).commit.token


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    whole = Running(tmp_path)
    yield whole
    whole.replicas.close()
    whole.inner.close()
    assert whole.deaths == _HEALTHY


def test_a_new_collection_serves_at_once(running: Running) -> None:
    """Right after create() the collection is listed, found and empty."""
    replica = running.replicas.create(spec("new"))
    assert running.replicas.get("new") is replica
    assert running.replicas.known("new") is replica
    assert [one.collection.spec.name for one in running.replicas.list()] == ["c", "new"]
    assert replica.count() == (replica.view(), 0)
    assert replica.ready.is_set()
    with pytest.raises(CollectionExistsError):
        running.replicas.create(spec("new"))


def test_who_asks_for_a_collection_that_is_being_created_can_read_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its commit and its first view a new collection is nobody's but its creator's."""
    counts: list[int] = []
    reader = threading.Thread(target=lambda: counts.append(running.replicas.get("new").count()[1]))
    create = running.inner.create_collection

    def create_slowly(spec: CollectionSpec) -> Collection:
        collection = create(spec)
        reader.start()
        reader.join(0.1)
        return collection

    monkeypatch.setattr(running.inner, "create_collection", create_slowly)
    running.replicas.create(spec("new"))
    reader.join()
    assert counts == [0]


def test_following_goes_on_while_a_collection_is_being_created(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A creation that waits for the store keeps no write to another collection from being seen."""
    asked, answered = threading.Event(), threading.Event()
    create = running.inner.create_collection

    def create_at_length(spec: CollectionSpec) -> Collection:
        asked.set()
        assert answered.wait(WAIT_S)
        return create(spec)

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(running.inner, "create_collection", create_at_length)
        created = pool.submit(running.replicas.create, spec("new"))
        assert asked.wait(WAIT_S)
        theirs = create(spec("theirs"))
        running.inner.write(theirs.id, [upsert(1, 1)]).result(WAIT_S)
        try:
            running.replica.applied(running.write(1)).result(WAIT_S)
            assert not created.done()
        finally:
            answered.set()
        assert created.result(WAIT_S).count()[1] == 0


def test_nobody_waits_for_a_collection_that_is_being_created(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a creation hangs, as on a missing standby, collections are found and listed, those of others too."""
    asked, answered = threading.Event(), threading.Event()
    create = running.inner.create_collection

    def create_at_length(spec: CollectionSpec) -> Collection:
        asked.set()
        assert answered.wait(WAIT_S)
        return create(spec)

    with monkeypatch.context() as patched, ThreadPoolExecutor(2) as pool:
        patched.setattr(running.inner, "create_collection", create_at_length)
        created = pool.submit(running.replicas.create, spec("new"))
        assert asked.wait(WAIT_S)
        theirs = create(spec("theirs"))
        try:
            assert pool.submit(running.replicas.find, "c").result(WAIT_S) is running.replica
            assert pool.submit(running.replicas.find, "theirs").result(WAIT_S).collection == theirs
            listed = pool.submit(running.replicas.complete_list).result(WAIT_S)
            assert [replica.collection.spec.name for replica in listed] == ["c", "theirs"]
            assert isinstance(pool.submit(running.replicas.find, "new").exception(WAIT_S), CollectionNotFoundError)
        finally:
            answered.set()
        assert created.result(WAIT_S).count()[1] == 0


@pytest.mark.parametrize("deleted", [False, True])
def test_files_on_a_slow_disk_hold_up_no_lookup(
    running: Running, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    """Collections are known and listed while one makes its files, and one deleted by then leaves none behind."""
    begun, ended = threading.Event(), threading.Event()
    create = Mirror.create

    def create_at_length(collection: Collection, folder: Path, *arguments: Any) -> Mirror:
        if collection.spec.name == "new":
            begun.set()
            assert ended.wait(WAIT_S)
        return create(collection, folder, *arguments)

    monkeypatch.setattr(Mirror, "create", create_at_length)
    with ThreadPoolExecutor(2) as pool:
        created = pool.submit(running.replicas.create, spec("new"))
        assert begun.wait(WAIT_S)
        try:
            assert pool.submit(running.replicas.known, "c").result(WAIT_S) is running.replica
            assert pool.submit(running.replicas.list).result(WAIT_S) == [running.replica]
            if deleted:
                pool.submit(running.replicas.delete, "new").result(WAIT_S)
        finally:
            ended.set()
        if not deleted:
            assert created.result(WAIT_S) is running.replicas.known("new")
    while deleted and len(list((running.folder / "scratch").iterdir())) > 1:
        pass
    assert (running.replicas.known("new") is None) is deleted


def test_a_write_is_seen_by_who_carries_its_token(running: Running) -> None:
    """Once applied(token) has resolved, the write is in the view, on the commit or behind it."""
    tokens = [running.write(number) for number in range(50)]
    for number in reversed(range(50)):
        running.replica.applied(tokens[number]).result(WAIT_S)
        assert running.replica.lookup([document(number, 0).id])[1][0] >= 0
    check(running.replica, {document(number, 0).id: document(number, 0) for number in range(50)})


def test_a_token_of_another_history_fails_at_once(running: Running) -> None:
    """A token with another tag, beyond the head, or of another collection is refused, never waited for."""
    token = running.write(1)
    other = running.replicas.create(spec("other")).collection.id
    for wrong in (
        WriteToken(token.collection_id, token.position, new_tag()),
        WriteToken(token.collection_id, token.position + 9, new_tag()),
        WriteToken(other, token.position, token.tag),
    ):
        with pytest.raises(HistoryChangedError, match="write token"):
            running.replica.applied(wrong).result(WAIT_S)


def test_a_token_older_than_the_retention_says_so(running: Running) -> None:
    """A token whose commit was pruned fails with its own reason when this replica never met that commit."""
    old = running.write(1)
    running.replica.applied(running.write(2)).result(WAIT_S)
    running.inner.prune(running.replica.collection.id, 0.0)
    running.replicas.close()
    running.replicas = open_replicas(running.store.store, running.folder, running.deaths)
    with pytest.raises(WriteTokenExpiredError):
        running.replicas.get("c").applied(old).result(WAIT_S)


@pytest.mark.parametrize("error", [UnavailableError("away"), CorruptionError("damaged"), StorageFullError("a test")])
def test_waiting_outlasts_a_troubled_store(running: Running, error: ServiceError) -> None:
    """While the store is away a token waits and can be let go without a trace; when it is back, the waiter wakes."""
    running.store.error, running.store.away = error, True
    token = running.write(1)
    left = running.replica.applied(token)
    kept = running.replica.applied(token)
    assert left.cancel()
    assert len(running.replica.waiters) == 1
    assert not kept.done()
    running.store.away = False
    kept.result(WAIT_S)
    assert len(running.replica.waiters) == 0


def test_a_load_that_is_held_up_says_by_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads a collection meanwhile learns what to mend, not to retry in a moment."""
    store, deaths = open_store(tmp_path), list[BaseException]()
    store.write(store.create_collection(spec()).id, [upsert(1, 0)]).result(WAIT_S)
    full, asked = StorageFullError("appending rows"), threading.Semaphore(0)

    def apply(*_: object) -> None:
        asked.release()
        raise full

    monkeypatch.setattr(Mirror, "apply", apply)
    replicas = Replicas.open(store, tmp_path, SMALL, deaths.append)
    replicas.start()
    assert all(asked.acquire(timeout=WAIT_S) for _ in range(2))
    with pytest.raises(IndexLoadingError, match=r"held up: .*appending rows") as refused:
        replicas.get("c").view()
    assert refused.value.remedy.startswith("Mend that")
    monkeypatch.undo()
    assert replicas.ready.wait(WAIT_S)
    assert replicas.get("c").count()[1] == 1
    replicas.close()
    store.close()
    assert deaths == _HEALTHY


def test_what_is_caught_up_is_held_up_by_nothing(running: Running) -> None:
    """A step that failed and is not needed any more is not tried again, and counts no longer."""
    replica = running.replica
    running.store.away = True
    left = replica.applied(WriteToken(replica.collection.id, 1, new_tag()))
    eventually(lambda: replica.held_up is not None)
    left.cancel()
    running.store.away = False
    eventually(lambda: replica.held_up is None and running.replicas.held_up is None)


def test_applied_writes_are_proved_without_the_store(running: Running) -> None:
    """Each token of a commit that the feed named is answered while the store is away, whichever way it came here."""
    with writer_held(running.inner, running.replica.collection.id):  # so that the follower sees several commits at once
        writes = [running.inner.write(running.replica.collection.id, [upsert(key, 0)]) for key in range(20)]
    tokens = [write.result(WAIT_S).commit.token for write in writes]
    tokens += [running.write(key) for key in range(20)]
    running.replica.applied(tokens[-1]).result(WAIT_S)
    running.store.away = True
    assert all(running.replica.applied(token).done() for token in tokens)
    assert not running.replica.applied(WriteToken(tokens[0].collection_id, tokens[0].position, new_tag())).done()


def test_a_new_collection_that_the_store_tells_of_is_loaded_at_once(tmp_path: Path) -> None:
    """Nobody has to ask for it, and the next poll, here an hour away, is not waited for."""
    inner, deaths = open_store(tmp_path), list[BaseException]()
    replicas = open_replicas(inner, tmp_path, deaths, replace(SMALL, poll_interval_s=3_600.0))
    theirs = inner.create_collection(spec("theirs"))
    token = inner.write(theirs.id, [upsert(1, 1)]).result(WAIT_S).commit.token
    while (replica := replicas.known("theirs")) is None:
        pass
    replica.applied(token).result(WAIT_S)
    check(replica, {document(1, 1).id: document(1, 1)})
    replicas.close()
    inner.close()
    assert deaths == _HEALTHY


def test_a_collection_of_others_can_be_waited_for(running: Running) -> None:
    """loaded() resolves with the first view of a collection that another process made."""
    running.inner.create_collection(spec("theirs"))
    replica = running.replicas.get("theirs")
    replica.loaded().result(WAIT_S)
    assert replica.count()[1] == 0


def test_another_collection_in_the_place_of_one(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """After a restore an id and a name can mean other collections: what is served is what the store has."""
    first, second = open_store(tmp_path), open_store(tmp_path_factory.mktemp("restored"))
    store, deaths = SwitchableStore(first), list[BaseException]()
    empty, written = first.create_collection(spec("empty")), first.create_collection(spec("written"))
    first.write(written.id, [upsert(1, 1)]).result(WAIT_S)
    other, same = second.create_collection(spec("other")), second.create_collection(spec("empty"))
    assert (other.id, same.id) == (empty.id, written.id)
    second.write(other.id, [upsert(2, 1)]).result(WAIT_S)
    token = second.write(same.id, [upsert(3, 1)]).result(WAIT_S).commit.token
    replicas = open_replicas(store.store, tmp_path, deaths)
    store.away = True
    assert store.missed.wait(WAIT_S)
    store.inner, store.away = second, False
    replica = replicas.current("empty")
    replica.applied(token).result(WAIT_S)
    check(replica, {document(3, 1).id: document(3, 1)})
    replica = replicas.current("other")
    replica.loaded().result(WAIT_S)
    check(replica, {document(2, 1).id: document(2, 1)})
    with pytest.raises(CollectionNotFoundError):
        replicas.get("written")
    assert [each.collection for each in replicas.list()] == [same, other]
    replicas.close()
    first.close()
    second.close()
    assert deaths == _HEALTHY


def test_a_deleted_collection_is_gone_at_once(running: Running) -> None:
    """After delete() the name is unknown, waiters fail, its files go, and a namesake starts empty."""
    old = running.replica
    running.store.away = True
    waiter = old.applied(running.write(1))
    running.store.away = False
    running.replicas.delete("c")
    assert running.replicas.known("c") is None
    with pytest.raises(CollectionNotFoundError):
        running.replicas.get("c")
    with pytest.raises(CollectionNotFoundError):
        running.replicas.delete("c")
    namesake = running.replicas.create(spec())
    assert namesake.collection.id != old.collection.id
    assert namesake.count()[1] == 0
    error = waiter.exception(WAIT_S)
    assert error is None or isinstance(error, CollectionNotFoundError)


def test_collections_of_others_are_noticed(running: Running) -> None:
    """What another process creates is found by name at once; what it deletes disappears at the next poll."""
    collection = running.inner.create_collection(spec("theirs"))
    replica = running.replicas.get("theirs")
    token = running.inner.write(collection.id, [upsert(1, 1)]).result(WAIT_S).commit.token
    replica.applied(token).result(WAIT_S)
    check(replica, {document(1, 1).id: document(1, 1)})
    running.store.away = True
    waiter = replica.applied(running.inner.write(collection.id, [upsert(2, 1)]).result(WAIT_S).commit.token)
    running.inner.delete_collection(collection.id)
    running.store.away = False
    assert isinstance(waiter.exception(WAIT_S), CollectionNotFoundError)
    assert running.replicas.known("theirs") is None


def test_readers_never_see_both_versions_or_neither(running: Running) -> None:
    """Searches, lookups and lists during updates, builds and rebuilds show each document exactly once."""
    keys = range(25)
    ids = sorted(document(key, 0).id for key in keys)
    token = running.write(*keys)
    running.replica.applied(token).result(WAIT_S)
    done, wrong = threading.Event(), []

    def read() -> None:
        query = np.ones(4, np.float32)
        while not done.is_set():
            view = running.replica.view()
            found = view.ids(view.index.search(query, k=60, exact=True).rows)
            looked, rows = running.replica.lookup(ids)
            paged, listed, _ = running.replica.list_page("", 60)
            states = (sorted(found), [one.id for one in looked.documents(rows)], paged.ids(listed))
            if any(state != ids for state in states) or (rows < 0).any():
                wrong.append(states)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    version = 0
    while version < 40 or running.replica.status().state.generation < 3:
        version += 1
        token = running.write(*keys, version=version)
    running.replica.applied(token).result(WAIT_S)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong, wrong[0]
    check(running.replica, {document(key, version).id: document(key, version) for key in keys})


def test_a_clean_end_saves_and_a_start_goes_on_from_there(running: Running) -> None:
    """close() writes a snapshot of what changed, fails who waits, and the next start need not read the store."""
    token = running.write(*range(8))
    running.replica.applied(token).result(WAIT_S)
    running.store.away = True
    waiter = running.replica.applied(WriteToken(token.collection_id, token.position + 1, new_tag()))
    running.replicas.close()
    running.store.away = False
    assert isinstance(waiter.exception(WAIT_S), ReplicaClosedError)
    assert list((running.folder / "snapshots").glob("*/*/manifest.json"))
    assert not list((running.folder / "scratch").iterdir())
    before = running.store.rows_read
    running.replicas = open_replicas(running.store.store, running.folder, running.deaths)
    assert running.store.rows_read == before
    check(running.replicas.get("c"), {document(key, 0).id: document(key, 0) for key in range(8)})


def test_snapshots_of_deleted_collections_are_removed(running: Running) -> None:
    """Snapshots of a collection that was deleted while no replica ran go at the next start."""
    running.replica.applied(running.write(1, 2, 3)).result(WAIT_S)
    running.replicas.close()
    folder = running.folder / "snapshots" / str(running.replica.collection.id)
    assert folder.exists()
    running.inner.delete_collection(running.replica.collection.id)
    running.replicas = open_replicas(running.store.store, running.folder, running.deaths)
    assert not folder.exists()


def test_progress_tells_when_all_is_loaded(running: Running) -> None:
    """After the start every collection reports itself ready with everything read."""
    running.replica.applied(running.write(*range(9))).result(WAIT_S)
    running.replicas.close()
    shutil.rmtree(running.folder / "snapshots", ignore_errors=True)
    running.replicas = open_replicas(running.store.store, running.folder, running.deaths)
    (progress,) = running.replicas.progress()
    assert (progress.collection, progress.rows_read, progress.share, progress.ready) == ("c", 9, 1.0, True)


class BrokenStore(SwitchableStore):
    """A store with a bug in the feed."""

    def _counted(self, read_feed: object) -> object:  # type: ignore[override]
        raise ZeroDivisionError


def test_a_dead_follower_thread_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw in the follower thread reaches on_death, which ends the process, before the log."""
    inner: SqliteStore = open_store(tmp_path)
    inner.create_collection(spec(kind=IndexKind.EXACT))
    logged, deaths = threading.Event(), list[BaseException]()

    class Log:
        def exception(self, event: str, **facts: str) -> None:
            assert deaths
            logged.set()

    monkeypatch.setattr("nearshore.replica.replicas.log", Log())
    replicas = Replicas.open(BrokenStore(inner).store, tmp_path, SMALL, deaths.append)
    replicas.start()
    assert logged.wait(WAIT_S)
    assert isinstance(deaths[0], ZeroDivisionError)
    replicas.close()
    inner.close()


def test_a_dead_builder_thread_is_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw in a build reaches on_death, which ends the process."""

    def explode(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("nearshore.index.BuildPlan.run", explode)
    dead = threading.Event()
    monkeypatch.setattr(running.replicas._around.builder, "_on_death", lambda error: dead.set())
    running.write(*range(30))
    assert dead.wait(WAIT_S)


class Gate:
    """A task that tells when it runs, and ends when it is let through."""

    def __init__(self) -> None:
        self.running, self.open = threading.Event(), threading.Event()

    def run(self) -> None:
        self.running.set()
        self.open.wait(WAIT_S)


def test_closing_the_builder_waits_for_the_present_task_only() -> None:
    """Tasks that still queue when the builder is closed are not run."""
    deaths: list[BaseException] = []
    builder, present, later = Builder(deaths.append), Gate(), Gate()
    builder.start()
    builder.submit(present, lambda: None)
    assert present.running.wait(WAIT_S)
    builder.submit(later, lambda: None)
    assert not builder.close(0.0)
    present.open.set()
    assert builder.close(WAIT_S)
    assert not later.running.is_set()
    assert deaths == _HEALTHY


def test_delete_takes_effect_in_every_way_of_reading(running: Running) -> None:
    """A deleted document is in no lookup, list, count or search."""
    running.write(1, 2, 3)
    token = running.inner.write(running.replica.collection.id, [delete(2)]).result(WAIT_S).commit.token
    running.replica.applied(token).result(WAIT_S)
    replica: Replica = running.replica
    check(replica, {document(key, 0).id: document(key, 0) for key in (1, 3)})
