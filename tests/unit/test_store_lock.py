"""One process opens a data folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nearshore.errors import OutOfHandlesError, StorageFullError
from nearshore.store.errors import DataFolderLockedError, DataFolderReadOnlyError
from nearshore.store.lock import FolderLock, Holder, read_holder

HOLD = """
import sys
from pathlib import Path
from nearshore.store.lock import FolderLock
lock = FolderLock.acquire(Path(sys.argv[1]))
lock.publish("127.0.0.1:50051")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_opener_learns_who_holds_the_folder(tmp_path: Path) -> None:
    """The error names process and address of the holder; after release the folder is free."""
    folder = tmp_path / "deep" / "data"
    lock = FolderLock.acquire(folder)
    assert read_holder(folder) == Holder(os.getpid(), "")
    lock.publish("127.0.0.1:50051")
    with pytest.raises(DataFolderLockedError) as refused:
        FolderLock.acquire(folder)
    assert refused.value.reason == "DATA_FOLDER_LOCKED"
    assert refused.value.metadata == {"folder": str(folder), "pid": str(os.getpid()), "address": "127.0.0.1:50051"}
    assert str(os.getpid()) in str(refused.value)
    lock.publish("[::1]:1")
    assert read_holder(folder) == Holder(os.getpid(), "[::1]:1")
    lock.release()
    lock.release()
    assert read_holder(folder) is None
    FolderLock.acquire(folder).release()


def test_the_folder_is_private(tmp_path: Path) -> None:
    """A new data folder can be entered by its owner only."""
    FolderLock.acquire(tmp_path / "data").release()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_killed_holder_leaves_the_folder_free(tmp_path: Path) -> None:
    """The lock holds against another process and ends with it, although its file stays."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert read_holder(tmp_path) == Holder(holder.pid, "127.0.0.1:50051")
        with pytest.raises(DataFolderLockedError):
            FolderLock.acquire(tmp_path)
        holder.kill()
        holder.wait()
    assert read_holder(tmp_path) is None
    lock = FolderLock.acquire(tmp_path)
    assert read_holder(tmp_path) == Holder(os.getpid(), "")
    lock.release()


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    """A folder that does not exist has no holder, and asking does not create it."""
    assert read_holder(tmp_path / "absent") is None
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("folder", ["file", "file/data"])
@pytest.mark.parametrize("open_folder", [FolderLock.acquire, read_holder])
def test_a_file_in_place_of_a_folder_is_called_that(
    folder: str, open_folder: Callable[[Path], object], tmp_path: Path
) -> None:
    """To make a file writable would help nobody: the message names it, and the remedy is to move it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderReadOnlyError) as refused:
        open_folder(tmp_path / folder)
    assert f"{tmp_path / 'file'} is not a folder" in refused.value.message
    assert refused.value.remedy == "Move that away, or choose another data_dir."


def test_a_disk_without_room_for_the_lock_is_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody keeps the folder: there may be room a moment later."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageFullError, match="Free space"):
            FolderLock.acquire(tmp_path)
    FolderLock.acquire(tmp_path).release()


def test_a_process_without_file_handles_does_not_blame_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To make it writable would help nobody."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(OutOfHandlesError, match=r"too many open files.*ulimit -Hn"):
            FolderLock.acquire(tmp_path)


def test_a_folder_that_cannot_be_made_names_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must be made writable is the folder above the first one that is missing."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataFolderReadOnlyError) as refused:
        FolderLock.acquire(tmp_path / "above" / "data")
    assert f"cannot be made in {tmp_path} (Permission denied)" in refused.value.message
    assert f"Make {tmp_path} writable" in refused.value.remedy
