"""One process opens a data folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_folder_that_cannot_be_made_is_read_only(tmp_path: Path) -> None:
    """A file where the folder should be is reported as DATA_FOLDER_READ_ONLY."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderReadOnlyError):
        FolderLock.acquire(tmp_path / "file")
