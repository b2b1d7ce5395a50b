"""Which server a command talks to where --server names none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nearshore.cli import connection
from nearshore.cli.session import Session, begin
from nearshore.store.lock import FolderLock, Holder, read_holder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The data folder of this session."""
    begin(Session(data_dir=tmp_path / "data"))
    yield tmp_path / "data"
    begin(Session())


def test_a_folder_that_nobody_has_open_is_told_at_once(folder: Path) -> None:
    """A server has to be started, or another folder to be named; an open and closed one is as good as none."""
    with pytest.raises(connection.FolderNotServedError):
        connection.target()
    FolderLock.acquire(folder).release()
    with pytest.raises(connection.FolderNotServedError):
        connection.target()


def test_who_has_the_folder_open_without_serving_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `nearshore index` does, or a server that waits for PostgreSQL: starting another one would not help."""
    monkeypatch.setattr(connection, "PATIENCE_S", 0.0)
    lock = FolderLock.acquire(folder)
    for ask in (connection.target, connection.serving_address):
        with pytest.raises(connection.FolderNotServedYetError, match=f"Process {os.getpid()} has .* open") as told:
            ask()
        assert "run the command again" in told.value.remedy
    lock.release()


def test_a_server_that_is_starting_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the folder open while it loads the model, and tells its address after that."""
    lock = FolderLock.acquire(folder)

    def look(folder: Path) -> Holder | None:
        seen = read_holder(folder)
        lock.publish("127.0.0.1:1")
        return seen

    monkeypatch.setattr(connection, "read_holder", look)
    assert connection.target() == "127.0.0.1:1"
    lock.release()
