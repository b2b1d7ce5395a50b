"""Two releases on one PostgreSQL: the earlier one runs on the tables of the later, as in an upgrade or a rollback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from nearshore.records import Delete
from nearshore.store.base import Cursor
from nearshore.store.errors import StoreFormatError, StoreLockedError
from nearshore.store.postgres import schema
from nearshore.store.postgres.store import PostgresStore
from tests.later_release import LANGUAGE, STATEMENTS, LaterRelease
from tests.postgres import execute
from tests.replica_world import SwitchableStore, World, document, spec, upsert
from tests.stores import open_postgres
from tests.waiting import WAIT_S

# PostgreSQL keeps the plan of what a connection has asked five times.
ROUNDS = 8


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    """A store of this release, open from before any migration."""
    with closing(open_postgres(url)) as opened:
        yield opened


@pytest.fixture
def world(store: PostgresStore, tmp_path: Path) -> World:
    """A collection, and a replica that follows it."""
    return World(SwitchableStore(store), store.create_collection(spec()), tmp_path)


def make_every_call(world: World) -> None:
    """Ask the store for all it can do, and the replica for what it follows; fails where an answer is wrong."""
    store, collection = world.store.inner, world.collection
    number = max(world.expected) + 1
    request = (collection.id, f"request {number}", b"digest")
    key = document(number, 0).id
    commit = world.write([upsert(number, number), Delete(document(number - 2, 0).id)])
    assert commit.position == number
    repeated = store.write(collection.id, [], *request[1:]).result(WAIT_S)
    world.expected[repeated.commit.position] = world.expected[number]
    assert store.write(collection.id, [], *request[1:]).result(WAIT_S) == store.find_request(*request) == repeated
    assert set(store.get_items(collection.id, [key, "absent"])) == {key}
    assert set(store.get_outlines(collection.id, [key, "absent"])) == {key}
    assert store.list_ids(collection.id, ["id-"]) == sorted(world.expected[number])
    assert store.heads()[collection.id] == Cursor(repeated.commit.position, repeated.commit.tag)
    assert store.commit_tag(collection.id, number) == commit.tag
    world.settle()
    assert world.replica.view().position == repeated.commit.position
    world.check()
    other = store.create_collection(spec(f"other {number}"))
    assert store.get_collection(other.spec.name) == other
    assert store.list_collections() == [collection, other]
    store.write(other.id, [upsert(1, 1)]).result(WAIT_S)
    store.delete_collection(other.id)
    assert store.prune(collection.id, 0.0) == repeated.commit.position


def let_it_write(later: LaterRelease, world: World) -> None:
    """Let the later release write a document that the replica then has to show."""
    before = max(world.expected)
    written = later.write(world.collection.id, before + 1, before + 1)
    added = document(before + 1, before + 1)
    world.expected[written] = {**world.expected[before], added.id: added}
    assert written == before + 1


def test_a_running_process_goes_on_when_a_later_release_migrates(url: str, world: World) -> None:
    """It writes, reads, follows and prunes beside the other on expanded tables, with the plans it had made before."""
    for _ in range(ROUNDS):
        make_every_call(world)
    with LaterRelease(url) as later:
        for _ in range(ROUNDS):
            let_it_write(later, world)
            make_every_call(world)
    assert execute(url, "SELECT version, compatible FROM nearshore_schema") == [(len(schema.MIGRATIONS) + 1, 1)]
    assert execute(url, f"SELECT count(*) > 0 FROM items WHERE language = '{LANGUAGE}'") == [(True,)]


def test_the_release_before_starts_on_migrated_tables(url: str, world: World) -> None:
    """After a rollback it opens what the later release left, does all it does, and leaves the version alone."""
    with LaterRelease(url) as later:
        let_it_write(later, world)
        with closing(open_postgres(url)) as rolled_back:
            world.store.inner = rolled_back
            for _ in range(ROUNDS):
                make_every_call(world)
                let_it_write(later, world)
    with closing(open_postgres(url)) as alone:
        world.store.inner = alone
        make_every_call(world)
    assert execute(url, "SELECT version, compatible FROM nearshore_schema") == [(len(schema.MIGRATIONS) + 1, 1)]


def test_a_release_that_is_too_old_is_refused(url: str, store: PostgresStore) -> None:
    """Where a migration says that older releases cannot run on its result, one that starts names both versions."""
    known = len(schema.MIGRATIONS)
    with LaterRelease(url, compatible=known + 1), pytest.raises(StoreFormatError) as refused:
        open_postgres(url)
    assert refused.value.metadata == {"found": str(known + 1), "known": str(known)}
    assert f"needs a nearshore that knows version {known + 1}" in refused.value.message
    assert "a later one" in refused.value.remedy


def test_what_runs_on_tables_it_does_not_know_says_so(url: str, world: World) -> None:
    """A process that still runs while a later release takes a column away names that, and its replica serves on."""
    world.write([upsert(1, 1)])
    world.settle()
    store, collection_id = world.store.inner, world.collection.id
    execute(url, "ALTER TABLE items RENAME COLUMN title TO heading")
    calls: list[Callable[[], object]] = [
        lambda: store.write(collection_id, [upsert(2, 2)]).result(WAIT_S),
        lambda: store.get_items(collection_id, ["id-001"]),
        lambda: store.read_feed(collection_id, Cursor()),
    ]
    for call in calls:
        with pytest.raises(StoreFormatError, match="title") as refused:
            call()
        assert "release" in refused.value.remedy
    world.check()


def test_a_migration_that_waits_holds_up_no_write(
    url: str, store: PostgresStore, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind somebody who reads for hours, a dump say, it gives up before those that queue behind it do."""
    make_every_call(world)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, schema.Migration(1, STATEMENTS)))
    stop = threading.Event()

    def write_on() -> int:
        written = 0
        while not stop.is_set():
            store.write(world.collection.id, [upsert(written, 1)]).result(WAIT_S)
            written += 1
        return written

    with ThreadPoolExecutor(1) as pool, psycopg.connect(url) as dump:
        dump.execute("SELECT count(*) FROM items")
        writing = pool.submit(write_on)
        with pytest.raises(StoreLockedError, match="opening the store"):
            open_postgres(url)
        stop.set()
        assert writing.result(WAIT_S)
    open_postgres(url).close()
    assert execute(url, "SELECT version FROM nearshore_schema") == [(len(schema.MIGRATIONS),)]
