"""What goes wrong within PostgreSQL: mistakes with one collection, limits, errors not known, and restores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from nearshore.errors import CollectionNotFoundError, CommitUnknownError, NearshoreError, StorageFullError
from nearshore.records import Commit, Delete
from nearshore.store.base import Cursor
from nearshore.store.errors import StoreFailedError, StoreUnavailableError
from nearshore.store.postgres.judging import Judgement, judge
from nearshore.store.rows import Write
from tests.postgres import ABSENT, PostgresServer, execute, programs
from tests.replica_world import open_replicas
from tests.stores import SPEC, Open, PostgresFactory, answers, upsert, walk, writer_held
from tests.waiting import WAIT_S, eventually

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
