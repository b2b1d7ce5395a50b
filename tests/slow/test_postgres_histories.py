"""A PostgreSQL that comes back with another history: whoever follows it converges, and no token waits for ever."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks.shared_keys import open_store
from nearshore.errors import CollectionNotFoundError, HistoryChangedError, NearshoreError, WriteTokenExpiredError
from nearshore.records import Change, Document, WriteToken
from nearshore.replica import Replica
from nearshore.store.base import Cursor
from tests.postgres import ABSENT, PostgresServer, programs
from tests.replica_world import SwitchableStore, delete, document, open_replicas, shown, spec, upsert
from tests.stores import walk
from tests.waiting import WAIT_S, eventually

pytestmark = pytest.mark.skipif(programs() is None, reason=ABSENT)
State = dict[str, Document]
T = TypeVar("T")


class World:
    """A store, replicas that follow it for as long as the world lasts, and one collection."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.store = SwitchableStore(open_store(url))
        self.deaths: list[BaseException] = []
        self.replicas = open_replicas(self.store.store, folder, self.deaths)
        self.replica = self.replicas.create(spec())

    def write(self, *changes: Change, replica: Replica | None = None) -> WriteToken:
        """One commit. Tried again while the store is away, as a client does."""
        collection_id = (replica or self.replica).collection.id
        return patiently(lambda: self.store.inner.write(collection_id, changes).result(WAIT_S).commit.token)

    def converge(self) -> State:
        """What the replica shows once it is where the store is; the store's feed says the same."""
        head = patiently(lambda: self.store.inner.heads()[self.replica.collection.id])
        if head.position:
            self.replica.applied(WriteToken(self.replica.collection.id, head.position, head.tag)).result(WAIT_S)
        state = self.replica.state()
        assert (state.position, state.tag, state.history_changed) == (head.position, head.tag, False)
        documents = shown(self.replica.view())
        fed = [item.document for item in walk(self.store.inner, self.replica.collection.id)[0]]
        assert documents == sorted((one for one in fed if one is not None), key=lambda one: one.id)
        assert len(documents) == len({one.id for one in documents})
        return {one.id: one for one in documents}

    def restart_replicas(self) -> None:
        """As a restart of the process: what is left are snapshots."""
        self.replicas.close()
        self.replicas = open_replicas(self.store.store, self.folder, self.deaths)
        self.replica = self.replicas.get("c")

    def close(self) -> None:
        self.replicas.close()
        self.store.inner.close()
        assert not self.deaths


def patiently(attempt: Callable[[], T]) -> T:
    """Try until the store has found back."""
    give_up_at = time.monotonic() + WAIT_S
    while True:
        try:
            return attempt()
        except NearshoreError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)


def state_of(versions: dict[int, int]) -> State:
    """What must be shown: version by key."""
    return {document(key, version).id: document(key, version) for key, version in versions.items()}


def upserts(keys: Sequence[int], version: int) -> list[Change]:
    return [upsert(key, version) for key in keys]


@pytest.fixture
def servers() -> Iterator[list[PostgresServer]]:
    """Where tests put the servers that they make."""
    made: list[PostgresServer] = []
    yield made
    for each in made:
        each.close()


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    """Where tests put their worlds."""
    made: list[World] = []
    yield made
    for each in made:
        each.close()


def base_backup(server: PostgresServer, *options: str) -> Path:
    """A copy of the running server's files."""
    folder = server.folder / "backup"
    connection = ("--host=127.0.0.1", f"--port={server.port}", "--username=postgres")
    server.run("pg_basebackup", *connection, "--checkpoint=fast", *options, "--pgdata", folder)
    return folder


def lose(world: World) -> tuple[WriteToken, WriteToken]:
    """What the later history lacks: writes, deletes, a collection made and one forgotten. Tokens of c and of late."""
    late = world.replicas.create(spec("late"))
    late_token = world.write(upsert(1, 1), replica=late)
    world.replicas.delete("old")
    world.write(*upserts(range(10), 2), *upserts(range(50, 60), 2))
    token = world.write(*[delete(key) for key in range(20, 30)])
    world.replica.applied(token).result(WAIT_S)
    with pytest.raises(CollectionNotFoundError):
        world.replicas.get("old")
    return token, late_token


def check_other_history(world: World, kept: WriteToken, lost: tuple[WriteToken, WriteToken]) -> None:
    """All that is asked of a replica whose store went back to `kept`."""
    # The state that was kept, before anybody writes on; then positions that the lost history had used already.
    eventually(lambda: not world.replica.state().history_changed and world.replica.state().position == kept.position)
    assert world.converge() == state_of(dict.fromkeys(range(40), 1))
    with pytest.raises(HistoryChangedError):
        world.replica.applied(lost[0]).result(WAIT_S)
    tokens = [world.write(upsert(100 + number, 3)) for number in range(5)]
    assert tokens[-1].position > lost[0].position
    for token in (kept, *tokens):
        world.replica.applied(token).result(WAIT_S)
    with pytest.raises(HistoryChangedError):
        world.replica.applied(lost[0]).result(WAIT_S)
    assert world.converge() == state_of({**dict.fromkeys(range(40), 1), **dict.fromkeys(range(100, 105), 3)})
    # The collection whose deletion was lost is back; the one that was never made is gone, and its name is free.
    eventually(lambda: {one.collection.spec.name for one in world.replicas.list()} == {"c", "old"})
    old = world.replicas.get("old")
    assert old.ready.wait(WAIT_S)
    assert shown(old.view()) == [document(1, 1)]
    late = world.replicas.create(spec("late"))
    assert late.collection.id != lost[1].collection_id
    with pytest.raises(HistoryChangedError):
        late.applied(lost[1]).result(WAIT_S)


def begin(server: PostgresServer, folder: Path) -> tuple[World, WriteToken]:
    """A world with 40 documents, and a second collection."""
    world = World(server.create_database(), folder)
    old = world.replicas.create(spec("old"))
    world.write(upsert(1, 1), replica=old)
    world.write(*upserts(range(45), 0))
    world.write(*upserts(range(40), 1))
    return world, world.write(*[delete(key) for key in range(40, 45)])


def test_a_promoted_standby_that_lost_a_tail(
    tmp_path: Path, servers: list[PostgresServer], worlds: list[World]
) -> None:
    """After fail-over to an asynchronous standby replicas show what it has, and tokens of the tail are refused."""
    primary = PostgresServer()
    servers.append(primary)
    primary.start()
    standby = PostgresServer(copy_of=base_backup(primary, "--write-recovery-conf"))
    servers.append(standby)
    standby.start()
    world, kept = begin(primary, tmp_path)
    worlds.append(world)
    with primary.connect() as at_primary, standby.connect() as at_standby:
        written = at_primary.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()[0][0]
        replayed = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        eventually(lambda: at_standby.execute(replayed, (written,)).fetchall()[0][0])
    standby.stop()
    lost = lose(world)
    primary.stop("immediate")
    standby.move_to(primary.port)
    standby.start()
    standby.promote()
    check_other_history(world, kept, lost)


def test_a_restore_to_an_earlier_time(tmp_path: Path, servers: list[PostgresServer], worlds: list[World]) -> None:
    """After point-in-time recovery replicas that were beyond that point go back to it."""
    original = PostgresServer()
    servers.append(original)
    archive = original.folder / "archive"
    original.configure("archive_mode = on", f"archive_command = 'cp %p {archive}/%f'")
    original.make_folder(archive)
    original.start()
    backup = base_backup(original)
    world, kept = begin(original, tmp_path)
    worlds.append(world)
    with original.connect() as connection:
        connection.execute("SELECT pg_create_restore_point('kept')")
        lost = lose(world)
        last = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchall()[0][0]
        eventually((archive / last).exists)
    original.stop()
    restored = PostgresServer(copy_of=backup, port=original.port)
    servers.append(restored)
    restored.configure(
        "archive_mode = off",
        f"restore_command = 'cp {archive}/%f %p'",
        "recovery_target_name = 'kept'",
        "recovery_target_action = promote",
    )
    (restored.data / "recovery.signal").touch()
    restored.start()
    check_other_history(world, kept, lost)


def refusal_once_reached(world: World) -> str:
    """Why the feed is refused, once it is by PostgreSQL: just after its return it is still known to be away."""
    give_up = time.monotonic() + WAIT_S
    while True:
        with pytest.raises(NearshoreError) as refused:
            world.store.inner.read_feed(world.replica.collection.id, Cursor())
        if "restor" in refused.value.message or time.monotonic() > give_up:
            return refused.value.message
        time.sleep(0.05)


def test_a_dump_restored_into_a_new_cluster(tmp_path: Path, servers: list[PostgresServer], worlds: list[World]) -> None:
    """A dump is restored table by table beneath replicas that are beyond it: none takes half of it for the whole."""
    original, new = PostgresServer(), PostgresServer()
    servers.extend([original, new])
    original.start()
    world, kept = begin(original, tmp_path)
    worlds.append(world)
    with original.connect() as connection:
        name = connection.execute("SELECT max(datname) FROM pg_database WHERE datname ~ 'test'").fetchall()[0][0]
    dump = new.folder / "dump"
    original.run("pg_dump", "--format=custom", "--file", original.folder / "dump", "--dbname", original.url(name))
    shutil.move(original.folder / "dump", dump)
    lost = lose(world)
    original.stop()
    new.move_to(original.port)
    new.start()
    new.run("createdb", "--maintenance-db", new.url(), name)
    restore = ("pg_restore", "--dbname", new.url(name))
    new.run(*restore, "--section=pre-data", dump)
    for table in ("collections", "commits", "nearshore_schema"):
        new.run(*restore, "--data-only", "--table", table, dump)
    before = world.replica.view()
    assert "restor" in refusal_once_reached(world)
    assert world.replica.view() is before
    for table in ("items", "requests", "purges"):
        new.run(*restore, "--data-only", "--table", table, dump)
    new.run(*restore, "--section=post-data", dump)
    check_other_history(world, kept, lost)


def test_a_snapshot_older_than_the_floor(tmp_path: Path, postgres_server: PostgresServer, worlds: list[World]) -> None:
    """A replica whose snapshot or cursor lies below the floor rebuilds: nothing that was deleted comes back."""
    world, kept = begin(postgres_server, tmp_path)
    worlds.append(world)
    world.converge()
    world.replicas.close()
    assert list((tmp_path / "snapshots").glob("*/*")), "no snapshot was written, so there is none to refuse"
    world.write(*[delete(key) for key in range(20)])
    pruned = world.write(upsert(50, 1))
    world.store.inner.prune(world.replica.collection.id, -1.0)
    world.restart_replicas()
    expected = {**dict.fromkeys(range(20, 40), 1), 50: 1}
    assert world.converge() == state_of(expected)
    with pytest.raises(WriteTokenExpiredError):
        world.replica.applied(kept).result(WAIT_S)
    world.replica.applied(pruned).result(WAIT_S)
    # The same for a cursor in memory: the store is away while others delete and prune.
    world.store.away = True
    world.write(*[delete(key) for key in range(20, 30)])
    world.write(upsert(51, 1))
    world.store.inner.prune(world.replica.collection.id, -1.0)
    world.store.away = False
    expected = {**dict.fromkeys(range(30, 40), 1), 50: 1, 51: 1}
    assert world.converge() == state_of(expected)
