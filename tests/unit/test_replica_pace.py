"""Writers who outrun the follower are slowed down, so that a view follows them; nobody else is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearshore.documents.requests import CountRequest, DocumentInput, UpsertRequest
from nearshore.errors import UnavailableError
from nearshore.replica import pace
from nearshore.replica.pace import Pace
from nearshore.store.base import Cursor, FeedPage, Walk
from nearshore.store.sqlite import SqliteStore
from tests.engine import DIMENSIONS, Engine, packed
from tests.replica_world import SwitchableStore, World, open_store, spec, upsert

PAGE = 7  # rows, of the world's options


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A collection of some documents, all applied."""
    store = open_store(tmp_path)
    made = World(SwitchableStore(store), store.create_collection(spec()), tmp_path)
    made.write([upsert(key, 0) for key in range(2 * PAGE)])
    made.settle()
    yield made
    store.close()


def begin_long_walk(world: World) -> None:
    """Leave the follower in the middle of a walk that has been going on for two seconds."""
    world.write([upsert(key, 1) for key in range(2 * PAGE)])
    assert world.follower.step(), "the walk has more than one page"
    world.now += 2.0


def test_a_view_follows_writers_that_are_faster(world: World) -> None:
    """Writers who write more than the follower reads wait once a walk is long, so that walks end again and again."""
    seen = set()
    for step in range(100):
        world.now += 0.3
        if world.replica.pace.turn().done():
            world.write([upsert(key, step) for key in range(2 * PAGE)])
        world.follower.step()
        world.builder.run_one()
        seen.add(world.replica.view().position)
        world.check()
    assert len(seen) > 5


def test_writes_that_the_follower_keeps_up_with_never_wait(world: World) -> None:
    """Without a long walk a write goes on at once."""
    assert world.replica.pace.turn().done()
    world.write([upsert(key, 1) for key in range(2 * PAGE)])
    assert world.follower.step()
    world.now += 0.5
    assert world.replica.pace.turn().done()


def test_who_waits_goes_on_when_the_walk_ends(world: World) -> None:
    """A waiting write goes on once its walk is published, and one that its caller gave up is forgotten."""
    begin_long_walk(world)
    kept, left = world.replica.pace.turn(), world.replica.pace.turn()
    assert not kept.done()
    assert left.cancel()
    world.apply()
    assert kept.done()
    assert kept.exception() is None


def test_nobody_waits_for_a_store_that_is_away(world: World) -> None:
    """A walk that cannot go on holds no write up."""
    begin_long_walk(world)
    waiting = world.replica.pace.turn()
    world.store.away = True
    with pytest.raises(UnavailableError):
        world.follower.step()
    assert waiting.done()
    assert world.replica.pace.turn().done()


def test_nobody_waits_while_a_collection_is_loaded_or_a_build_holds_the_feed_up(world: World) -> None:
    """The first walk after a start, and the pause for a build whose memory is full, hold no write up."""
    world.write([upsert(key, 2) for key in range(60)])
    world.restart()
    world.follower.step()
    world.now += 9.0
    world.follower.step()
    assert world.replica.pace.turn().done()
    world.fill_build_memory()
    assert world.builder.tasks
    world.now += 9.0
    world.write([upsert(key, 4) for key in range(60)])
    world.follower.step()
    assert world.replica.pace.turn().done()


def test_nobody_waits_for_a_deleted_collection(world: World) -> None:
    """A write of a collection that goes away goes on, to be told so by the store."""
    begin_long_walk(world)
    waiting = world.replica.pace.turn()
    world.follower.drop()
    assert waiting.done()


def test_a_turn_is_given_after_a_long_walk_only() -> None:
    """A pace that has never seen a walk, or sees a new one, gives a turn at once."""
    now = [0.0]
    paced = Pace(lambda: now[0])
    assert paced.turn().done()
    for _ in range(2):
        paced.walking()
        now[0] += 0.9
        paced.walking()
        assert paced.turn().done()
        now[0] += 0.9
        assert not paced.turn().done()
        paced.resting()
        assert paced.turn().done()


def test_a_reader_reaches_its_write_while_others_never_stop_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a follower that reads one row at a time and four callers that never pause, read_after is always reached."""
    read_feed = SqliteStore.read_feed

    def one_row(store: SqliteStore, collection_id: int, cursor: Cursor, resume: Walk | None, _: int) -> FeedPage:
        return read_feed(store, collection_id, cursor, resume, 1)

    monkeypatch.setattr(SqliteStore, "read_feed", one_row)
    monkeypatch.setattr(pace, "_LONG_WALK_S", 0.05)
    one = packed(np.eye(1, DIMENSIONS, dtype=np.float32))
    vectors = packed(np.eye(DIMENSIONS, dtype=np.float32)[np.arange(100) % DIMENSIONS])

    async def write(engine: Engine, collection: str, writer: int) -> None:
        batch = [DocumentInput(f"{writer}-{number}") for number in range(100)]
        while True:
            await engine.documents.upsert(UpsertRequest(collection, batch, vectors=vectors))

    async def read(engine: Engine, collection: str) -> None:
        writers = [asyncio.create_task(write(engine, collection, writer)) for writer in range(4)]
        for number in range(5):
            mine = UpsertRequest(collection, [DocumentInput(f"mine-{number}")], vectors=one)
            token = (await engine.documents.upsert(mine)).write_token
            await engine.documents.count(CountRequest(collection, read_after=[token]))
        for writer in writers:
            writer.cancel()
        await asyncio.wait(writers)

    with Engine(tmp_path) as engine:
        engine.run(read(engine, engine.create("c")))
