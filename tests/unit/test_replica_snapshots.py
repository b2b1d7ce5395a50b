"""A snapshot is used whole and in its own history, or not at all; without one the store tells everything again."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.documents.limits import Limits
from nearshore.documents.reading import reach
from nearshore.errors import HistoryChangedError, UnavailableError
from nearshore.replica.snapshots import MANIFEST, candidates
from tests.replica_world import SwitchableStore, World, delete, open_store, scratch_folder, spec, upsert
from tests.waiting import WAIT_S


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A closed collection with a graph, dead rows and a tail, and its two snapshots; to be copied."""
    folder = tmp_path_factory.mktemp("saved")
    store = open_store(folder)
    world = World(SwitchableStore(store), store.create_collection(spec()), folder)
    world.write([upsert(key, 0) for key in range(30)])
    world.settle()
    world.write([upsert(1, 1), delete(2), upsert(40, 1)])
    world.settle()
    assert len(candidates(world.snapshots)) == 2
    store.close()
    return world


def copied(saved: World, folder: Path) -> World:
    """The same in a folder of its own, open."""
    shutil.copytree(saved.folder, folder, dirs_exist_ok=True)
    return World(SwitchableStore(open_store(folder)), saved.collection, folder, expected=dict(saved.expected))


@pytest.fixture
def world(saved: World, tmp_path: Path) -> Iterator[World]:
    """A collection whose process starts again."""
    started = copied(saved, tmp_path)
    yield started
    started.store.inner.close()


def restarted_rows(world: World) -> int:
    """Restart, load everything, and return how many rows the store had to be asked for."""
    world.restart()
    before = world.store.rows_read
    world.settle()
    world.check()
    return world.store.rows_read - before


def test_a_restart_reads_only_what_the_snapshot_lacks(world: World) -> None:
    """A restart from a snapshot equals the store and reads only the commits behind the snapshot's position."""
    assert restarted_rows(world) == 0
    status = world.replica.status()
    assert (status.sealed_rows, status.documents) == (30, 30)
    last = candidates(world.snapshots)[0]
    world.write([upsert(3, 3)])
    assert restarted_rows(world) <= 2  # once to check the history, once to apply
    assert candidates(world.snapshots)[0] != last


def test_two_snapshots_are_kept(world: World) -> None:
    """However often is saved, the two newest snapshots stay."""
    for version in range(3):
        world.write([upsert(5, version)])
        world.settle()
    positions = [int(folder.name.split("-")[0]) for folder in candidates(world.snapshots)]
    assert positions == [5, 4]


def test_a_loaded_snapshot_can_be_rebuilt_and_saved_again(world: World) -> None:
    """What was loaded goes on like what was built here: updates, a rebuild, a snapshot, a restart."""
    world.restart()
    for version in range(6):
        world.write([upsert(key, version) for key in range(30)])
        world.settle()
    assert world.replica.status().dead_rows < 100
    assert restarted_rows(world) == 0


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


damages: list[Callable[[Path], None]] = [flip, cut, Path.unlink]
files = ["rows.f32", "columns.npz", "alive.npy", "index.json", "sealed.faiss"]
files += ["payload.bin", "payload.npy", "ids.jsonl", MANIFEST]


@pytest.mark.parametrize("file", files)
@pytest.mark.parametrize("damage", damages)
def test_a_damaged_snapshot_is_passed_over(world: World, file: str, damage: Callable[[Path], None]) -> None:
    """A changed byte, a cut or a missing file in the newest snapshot: the older one is used, the store has the rest."""
    newest, older = candidates(world.snapshots)
    damage(newest / file)
    rows = restarted_rows(world)
    assert 0 < rows < 30
    assert older.exists()


@settings(max_examples=25)
@given(data=st.data())
def test_any_changed_bit_is_noticed(saved: World, data: st.DataObject) -> None:
    """Whatever bit of whatever file changes, the snapshot is set aside and a restart shows the store's state."""
    folder = scratch_folder()
    world = copied(saved, folder)
    newest = candidates(world.snapshots)[0]
    path = newest / data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    assert restarted_rows(world) > 0
    assert newest.with_suffix(".refused").exists()
    world.store.inner.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("damage", damages)
def test_when_no_snapshot_verifies_the_store_is_read(world: World, damage: Callable[[Path], None]) -> None:
    """With every snapshot damaged the collection is rebuilt from the store, and the next restart is clean again."""
    for folder in candidates(world.snapshots):
        damage(folder / "payload.bin")
    assert restarted_rows(world) >= 31
    assert restarted_rows(world) == 0


@pytest.mark.parametrize(("field", "value"), [("format_version", 2), ("dimensions", 5), ("fingerprint", "other")])
def test_a_snapshot_of_another_kind_is_refused(world: World, field: str, value: object) -> None:
    """A snapshot of another format version, width or model is not read."""
    for folder in candidates(world.snapshots):
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, field: value}))
    assert restarted_rows(world) >= 31


@pytest.mark.parametrize("refusal", ["nearshore.replica.snapshots.shutil.rmtree", "pathlib.Path.rename"])
def test_a_refused_snapshot_that_cannot_be_moved_is_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    """When the folder of snapshots lets nothing be renamed or removed, a start still goes on to the older snapshot."""
    newest, older = candidates(world.snapshots)
    flip(newest / "payload.bin")
    newest.with_suffix(".refused").mkdir()
    (newest.with_suffix(".refused") / "inspected").touch()

    def fail(*_: object, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied")

    world.restart()
    with monkeypatch.context() as patched:
        patched.setattr(refusal, fail)
        world.apply()
    world.check()
    assert newest.exists()
    assert older.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize(
    "call", ["nearshore.replica.loading.np.load", "nearshore.index.saved.np.load", "pathlib.Path.mkdir"]
)
def test_trouble_with_working_files_refuses_no_snapshot(
    world: World, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    """A working file that cannot be written or read is told to who retries; the snapshots stay and serve later."""
    before = candidates(world.snapshots)

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, "a test")

    world.restart()
    with monkeypatch.context() as patched:
        patched.setattr(call, fail)
        with pytest.raises(OSError, match="a test"):
            world.follower.step()
    assert candidates(world.snapshots) == before
    assert restarted_rows(world) == 0


@pytest.mark.parametrize("file", [MANIFEST, "payload.bin"])
def test_want_of_file_handles_refuses_no_snapshot(world: World, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """A snapshot that cannot be opened for want of file handles is tried again, not set aside."""
    before, opened = candidates(world.snapshots), Path.open

    def fail(path: Path, mode: str = "r", *rest: Any) -> Any:
        if path.name == file and mode == "rb":
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, mode, *rest)

    world.restart()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail)
        with pytest.raises(OSError, match="Too many"):
            world.follower.step()
    assert candidates(world.snapshots) == before
    assert restarted_rows(world) == 0


def test_a_killed_save_leaves_nothing_that_is_used(world: World) -> None:
    """A folder without a manifest, left by a killed process, is removed at the next start."""
    unfinished = world.snapshots / "00000000000000000009-000001"
    shutil.copytree(candidates(world.snapshots)[0], unfinished)
    (unfinished / MANIFEST).unlink()
    assert restarted_rows(world) == 0
    assert not unfinished.exists()


def test_a_save_that_fails_keeps_the_older_snapshot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the older snapshots stay, following goes on, and the next save succeeds."""
    before = candidates(world.snapshots)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("nearshore.replica.snapshots.os.fsync", full)
        world.write([upsert(7, 7)])
        world.apply()
        world.builder.run_one()
    assert candidates(world.snapshots) == before
    world.settle()
    world.check()
    assert candidates(world.snapshots)[0] not in before


@pytest.mark.parametrize("when", ["queued", "running"])
def test_a_deleted_collection_leaves_no_snapshot(world: World, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A snapshot that was due before its collection was deleted leaves nothing, even when it is written after that."""
    world.restart()
    world.write([upsert(7, 7)])
    world.apply()
    assert world.builder.tasks, "a snapshot is due"
    if when == "queued":
        world.follower.drop()
    else:
        made = Path.mkdir

        def drop_first(path: Path, *arguments: Any, **named: Any) -> None:
            if path.parent == world.snapshots:
                world.follower.drop()
            made(path, *arguments, **named)

        monkeypatch.setattr(Path, "mkdir", drop_first)
    world.builder.run_one()
    assert not world.snapshots.exists()


def test_a_snapshot_that_the_builder_never_came_to_is_written_at_the_end(world: World) -> None:
    """At a clean end the rows of a save that was still queued are saved."""
    world.restart()
    world.write([upsert(7, 7)])
    world.apply()
    assert world.builder.tasks, "a snapshot is due"
    assert world.follower.save_last(1 << 30) > 0
    assert restarted_rows(world) == 0


def restore(world: World, backup: Path) -> None:
    """Put an older copy of the database in place, as an operator would, under the running follower."""
    world.store.inner.close()
    for path in world.folder.glob("store.sqlite*"):
        path.unlink()
    for path in backup.iterdir():
        shutil.copy(path, world.folder / path.name)
    world.store.inner = open_store(world.folder)


def back_up(world: World, backup: Path) -> None:
    """Copy the database while it is closed."""
    world.store.inner.close()
    backup.mkdir()
    for path in world.folder.iterdir():
        if path.is_file():
            shutil.copy(path, backup / path.name)
    world.store.inner = open_store(world.folder)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_restored_database_is_followed(world: World, tmp_path: Path, *, restarts: bool) -> None:
    """After a restore the old view serves, says that history changed, and is replaced by the restored state."""
    back_up(world, tmp_path / "backup")
    world.settle()
    for version in range(4):
        world.write([upsert(8, version)])
        world.settle()
    restore(world, tmp_path / "backup")
    for position in range(3, 7):
        del world.expected[position]
    for version in range(5, 7):
        world.write([upsert(9, version), delete(10)])
    if restarts:
        world.restart()
    else:
        assert world.follower.step()
        state = world.replica.state()
        assert (state.history_changed, state.position) == (True, 6)
        assert world.replica.lookup(["id-008"])[1] >= 0
    world.settle()
    assert not world.replica.state().history_changed
    world.check()
    assert restarted_rows(world) <= 2


def test_a_token_lost_in_a_fail_over_is_refused(world: World, tmp_path: Path) -> None:
    """Its position comes to mean another write while it waits: it fails, and is never taken for that one."""
    world.settle()
    back_up(world, tmp_path / "backup")
    lost = [world.write([upsert(key, 7)]) for key in (1, 2)]
    waiters = [world.replica.applied(commit.token) for commit in lost]
    world.store.away = True
    with pytest.raises(UnavailableError):
        world.follower.step()
    restore(world, tmp_path / "backup")
    world.store.away = False
    for commit in lost:
        del world.expected[commit.position]
    for key in (3, 4, 5):
        world.write([upsert(key, 7)])
    world.settle()
    world.check()
    assert [type(waiter.exception(0)) for waiter in waiters] == [HistoryChangedError] * 2


def test_a_read_waits_through_a_fail_over_for_all_of_its_tokens(world: World, tmp_path: Path) -> None:
    """A lost write that the old view still showed is not taken for seen once the new view has the other one."""
    world.settle()
    back_up(world, tmp_path / "backup")
    lost = [world.write([upsert(key, 7)]) for key in (1, 2)][-1].token
    world.settle()
    restore(world, tmp_path / "backup")
    kept = world.store.inner.write(world.collection.id, [upsert(3, 7)]).result(WAIT_S).commit.token

    async def read() -> None:
        reading = asyncio.create_task(reach(world.replica, [lost.encode(), kept.encode()], Limits(), None))
        while not reading.done():
            await asyncio.sleep(0)
            world.settle()
        await reading

    with pytest.raises(HistoryChangedError) as refused:
        asyncio.run(read())
    assert refused.value.metadata["position"] == str(lost.position)


def test_a_lost_token_is_refused_however_much_was_written_since(world: World, tmp_path: Path) -> None:
    """After a restore no lost token is taken for one of the many commits that one look at the feed cannot all name."""
    world.settle()
    back_up(world, tmp_path / "backup")
    lost = [world.write([upsert(1, version)]).token for version in range(60)]
    world.settle()
    restore(world, tmp_path / "backup")
    write, collection = world.store.inner.write, world.collection.id
    kept = [write(collection, [upsert(2, 0)]).result(WAIT_S).commit.token for _ in range(1_050)]
    world.settle()
    answers = [world.replica.applied(token) for token in lost]
    assert [token for token, answer in zip(lost, answers, strict=True) if answer.done()] == []
    valid = [world.replica.applied(token) for token in kept]
    world.settle()
    assert [type(answer.exception(0)) for answer in answers] == [HistoryChangedError] * len(lost)
    assert [answer.exception(0) for answer in valid] == [None] * len(kept)
