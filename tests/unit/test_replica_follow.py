"""A replica shows exactly what its store holds at the position it names, whatever is written or built when."""

from __future__ import annotations

import gc
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.errors import StorageFullError, UnavailableError
from nearshore.records import Change, IndexKind
from nearshore.replica import IndexLoadingError
from nearshore.store.sqlite import SqliteStore
from tests.replica_world import SwitchableStore, World, delete, open_store, scratch_folder, spec, upsert

_names = (f"c{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """One real store for all examples: each takes a collection of its own."""
    opened = open_store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.close()


def new_world(store: SqliteStore, folder: Path, kind: IndexKind = IndexKind.HNSW) -> World:
    return World(SwitchableStore(store), store.create_collection(spec(next(_names), kind)), folder)


@pytest.fixture
def world(store: SqliteStore, tmp_path: Path) -> World:
    return new_world(store, tmp_path)


keys = st.integers(0, 40)
changes = st.dictionaries(keys, st.none() | st.integers(0, 5), min_size=1, max_size=30)
actions = st.lists(
    st.one_of(changes, st.sampled_from(["step", "step", "build", "settle", "restart"])), min_size=1, max_size=14
)


def as_changes(drawn: dict[int, int | None]) -> list[Change]:
    return [delete(key) if version is None else upsert(key, version) for key, version in drawn.items()]


@settings(max_examples=40)
@given(script=actions, kind=st.sampled_from([IndexKind.HNSW, IndexKind.EXACT]))
def test_the_view_is_the_store_at_its_position(
    store: SqliteStore, script: list[dict[int, int | None] | str], kind: IndexKind
) -> None:
    """After any mix of writes, single pages, builds, snapshots and restarts the view equals the store's state there."""
    folder = scratch_folder()
    world = new_world(store, folder, kind)
    for action in script:
        match action:
            case dict():
                world.write(as_changes(action))
            case "step":
                world.follower.step()
            case "build":
                world.builder.run_one()
            case "settle":
                world.settle()
            case "restart":
                world.restart()
                world.settle()
        if world.follower.serves:
            world.check()
    world.settle()
    assert world.replica.view().position == max(world.expected)
    world.check()
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", [IndexKind.EXACT, IndexKind.HNSW])
def test_many_dead_rows_are_dropped_while_writes_go_on(store: SqliteStore, tmp_path: Path, kind: IndexKind) -> None:
    """A rebuild that is adopted after further upserts and deletes drops the dead and loses or revives nothing."""
    world = new_world(store, tmp_path, kind)
    for version in range(4):
        world.write([upsert(key, version) for key in range(40)])
        world.settle() if version < 3 else world.apply()
    before = world.replica.status()
    assert before.building
    world.write([delete(0), upsert(1, 9), upsert(50, 9)])
    world.write([delete(50), delete(2), upsert(51, 9)])
    world.apply()
    world.check()
    world.settle()
    after = world.replica.status()
    assert before.dead_rows > 100 > after.dead_rows
    world.check()


def test_a_held_view_outlives_rebuilds(world: World) -> None:
    """A search that took its view before a rebuild reads the same documents and vectors after it."""
    world.write([upsert(key, 0) for key in range(30)])
    world.settle()
    view = world.replica.view()
    rows = np.flatnonzero(view.index.alive)
    documents, vectors = view.documents(rows), view.vectors(rows)
    generation = view.index.generation
    for version in range(1, 6):
        world.write([upsert(key, version) for key in range(30)])
        world.settle()
    assert world.replica.view().index.generation > generation + 1
    assert view.documents(rows) == documents
    np.testing.assert_array_equal(view.vectors(rows), vectors)


def test_a_walk_of_many_pages_is_shown_at_once(world: World) -> None:
    """Between the pages of a walk every reader sees the old state whole; lookups and lists too."""
    world.write([upsert(key, 0) for key in range(20)])
    world.settle()
    world.write([upsert(key, 1) for key in range(20)])
    world.write([delete(key) for key in range(0, 20, 2)] + [upsert(key, 2) for key in range(20, 30)])
    pages = 0
    while world.follower.step():
        pages += 1
        assert world.replica.view().position == 1
        world.check()
    assert pages > 2
    assert world.replica.view().position == 3
    world.check()


def test_a_build_that_ends_during_a_walk_is_adopted_after_it(world: World) -> None:
    """The wake that a finished build gives is not lost when the follower is in the middle of the feed just then."""
    world.write([upsert(key, 0) for key in range(40)])
    world.apply()
    assert world.builder.tasks, "a build is due"
    world.write([upsert(key, 1) for key in range(40)])
    assert world.follower.step(), "the walk has more than one page"
    world.builder.run_one()
    world.apply()
    assert world.replica.status().sealed_rows > 0
    world.check()


def test_nothing_is_served_before_the_first_walk_ends(world: World) -> None:
    """A collection that is being loaded refuses reads with its own reason and tells how far it is."""
    world.write([upsert(key, 0) for key in range(20)])
    assert world.follower.step()
    with pytest.raises(IndexLoadingError):
        world.replica.view()
    with pytest.raises(IndexLoadingError):
        world.replica.lookup(["id-001"])
    progress = world.replica.progress()
    assert (progress.rows_read, progress.ready) == (7, False)


def test_ready_only_when_the_first_graph_is_built(world: World) -> None:
    """A loaded collection that needs a graph counts as ready once that graph serves."""
    world.write([upsert(key, 0) for key in range(20)])
    world.apply()
    assert world.replica.progress().building
    assert not world.replica.ready.is_set()
    world.settle()
    assert world.replica.ready.is_set()
    assert world.replica.status().sealed_rows == 20


def test_who_sees_a_write_sees_the_build_that_it_makes_due(world: World) -> None:
    """Whoever waits for a write, and for the graph of it after that, must not take one to come for one that is done."""
    world.follower.step()
    seen: list[bool] = []
    waiting = world.replica.applied(world.write([upsert(key, 0) for key in range(20)]).token)
    waiting.add_done_callback(lambda _: seen.append(world.replica.status().building))
    world.apply()
    assert seen == [True]


def test_who_sees_a_build_end_sees_the_next_one_that_is_due(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written during a build may make another due at once: nobody must take the index for complete between."""
    world.write([upsert(key, 0) for key in range(20)])
    world.apply()
    world.write([upsert(key, 0) for key in range(20, 60)])
    world.apply()
    seen: list[tuple[int, bool]] = []
    publish = world.replica.publish

    def noting(mirror: Any, *arguments: Any) -> None:
        seen.append((mirror.sealed_rows, mirror.building is not None))
        publish(mirror, *arguments)

    world.builder.run_one()
    monkeypatch.setattr(world.replica, "publish", noting)
    world.follower.step()
    assert seen[0] == (20, True)


def test_a_view_follows_while_its_build_waits_for_others(world: World) -> None:
    """However many times the longest tail is written meanwhile, and whoever writes, every commit is applied."""
    world.write([upsert(key, 0) for key in range(20)])
    world.apply()
    assert world.builder.tasks, "it queues and is not run"
    for version in range(1, 10):
        world.write([upsert(key, version) for key in range(40)])
        world.apply()
        assert world.replica.state().lag == 0
        world.check()


def test_the_feed_waits_for_a_build_when_its_memory_is_full(world: World) -> None:
    """What a build has for memory written since it was planned, nothing more is applied until it ends: lag grows."""
    world.fill_build_memory()
    position = world.replica.view().position
    world.write([upsert(70, 0)])
    with structlog.testing.capture_logs() as logged:
        world.write([upsert(71, 0)])
        world.apply()
    assert world.replica.view().position == position
    assert world.replica.state().lag == 2
    assert [line["event"] for line in logged] == ["the feed waits for an index build"]
    world.settle()
    assert world.replica.state().lag == 0
    world.check()


def test_who_waits_while_the_feed_does_costs_the_store_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of commits that are not applied yet are proved by what the feed named, and reached after the build."""
    world.fill_build_memory()
    tokens = [world.write([upsert(70 + number, 0)]).token for number in range(9)]
    with monkeypatch.context() as patched:
        patched.setattr(world.store.inner, "commit_tag", None)
        waiting = [world.replica.applied(token) for token in tokens]
        world.apply()
    assert not any(future.done() for future in waiting)
    world.settle()
    assert all(future.exception() is None for future in waiting)


def test_a_full_disk_holds_the_feed_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that cannot be kept is not half applied: the view stays, and the page is taken when there is room."""
    world.write([upsert(1, 0), upsert(2, 0)])
    world.settle()
    world.write([upsert(1, 1), delete(2), upsert(3, 0)])

    def full(*_: object) -> int:
        raise StorageFullError("a test")

    with monkeypatch.context() as patched:
        patched.setattr("nearshore.index.Segment.append", full)
        with pytest.raises(StorageFullError):
            world.follower.step()
        world.check()
    world.settle()
    assert world.replica.view().position == 2
    world.check()


def open_files(folder: Path) -> list[str]:
    """The files under `folder` that this process holds open."""
    gc.collect()
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sorted(link.removesuffix(" (deleted)") for link in links if link.startswith(str(folder)))


def working_files(world: World) -> list[Path]:
    return sorted(path for path in (world.folder / "scratch").rglob("*") if path.is_file())


@pytest.mark.parametrize("full", ["nearshore.index.rows.Rows.reserve", "nearshore.replica.payload.Payload.caught_up"])
def test_a_rebuild_that_does_not_fit_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    """When the disk fills up as a rebuild is put to use, its files go and the feed is followed on."""
    for version in range(4):
        world.write([upsert(key, version) for key in range(40)])
        world.settle() if version < 3 else world.apply()
    held, named = open_files(world.folder), working_files(world)
    world.builder.run_one()
    assert world.replica.status().dead_rows > 100

    def fail(*_: object) -> None:
        raise StorageFullError("a test")

    with monkeypatch.context() as patched:
        patched.setattr(full, fail)
        world.follower.step()
    assert not world.replica.status().building
    assert (open_files(world.folder), working_files(world)) == (held, named)
    world.write([upsert(50, 9), delete(3)])
    world.apply()
    assert world.replica.view().position == max(world.expected)
    world.check()


@pytest.mark.parametrize("ends", ["before", "after"])
def test_a_build_that_nobody_adopts_keeps_no_file(world: World, ends: str) -> None:
    """A build that ends shortly before its collection goes, or after that, leaves no file behind, open or on disk."""
    for version in range(4):
        world.write([upsert(key, version) for key in range(40)])
        world.settle() if version < 3 else world.apply()
    held = open_files(world.folder)
    if ends == "before":
        world.builder.run_one()
        assert len(open_files(world.folder)) > len(held)
    world.follower.drop()
    world.builder.run_one()
    assert not working_files(world)
    assert set(open_files(world.folder)) <= set(held), "the last view may be read to its end"


def test_an_absent_store_leaves_the_view_in_place(world: World) -> None:
    """While the store is away a loaded replica reads on from its own copy; when it is back, it catches up."""
    world.write([upsert(1, 0)])
    world.settle()
    world.write([upsert(2, 0)])
    world.store.away = True
    with pytest.raises(UnavailableError):
        world.follower.step()
    world.check()
    world.store.away = False
    world.settle()
    assert world.replica.view().position == 2
    world.check()
