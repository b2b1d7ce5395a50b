"""Turns what SQLite and the system report into this project's errors; no sqlite3 exception leaves the store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearshore.errors import OUT_OF_HANDLES, CommitUnknownError, NearshoreError, OutOfHandlesError, StorageFullError
from nearshore.store.errors import (
    DataFolderReadOnlyError,
    StoreCorruptError,
    StoreUnavailableError,
    closed,
)

# Below this much free space an I/O error is taken for a full disk: SQLite reports a full disk as an I/O error
# when it cannot grow its shared-memory file.
FULL_BELOW_BYTES = 1 << 20

_HANDLES = 4
_PASSING = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PROTOCOL)
_RESTORE = "Stop the server and restore the data folder from a backup; without one, move it away and index again."


def translate(error: sqlite3.Error, file: Path, doing: str) -> NearshoreError:
    """The error to raise for `error`, met in `file` while `doing` (a phrase such as "writing documents")."""
    code = getattr(error, "sqlite_errorcode", -1)  # absent when the Python module itself raised it
    primary = code & 0xFF if code >= 0 else code
    if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and _is_full(file.parent)):
        translated: NearshoreError = StorageFullError(f"{doing} in {file}")
    elif primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        translated = StoreCorruptError(f"The store {file} is damaged: {error} while {doing}.", _RESTORE, file=file)
    elif primary == sqlite3.SQLITE_CANTOPEN and _is_out_of_handles(file):
        translated = OutOfHandlesError(f"opening the store {file} while {doing}")
    elif primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        translated = DataFolderReadOnlyError(str(file.parent), f"{error} while {doing}")
    elif primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        translated = StoreUnavailableError(
            f"Another process keeps the store {file} locked ({doing}).", "Close the other program that has it open."
        )
    elif primary in _PASSING:
        translated = StoreUnavailableError(
            f"The store {file} failed while {doing}: {error} ({error.sqlite_errorname}).",
            "Look at the disk and the system log; the store goes on as soon as it can.",
        )
    elif isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        translated = closed()
    else:
        translated = NearshoreError(f"The store made a mistake while {doing}: {error}.", "Please report this.")
    return translated


def commit_failed(error: sqlite3.Error, file: Path, doing: str) -> NearshoreError:
    """The error to raise for `error`, met at COMMIT; otherwise as translate.

    Only SQLITE_FULL, a write that found no space, says that the commit is not in the log. After any other error, a
    failed sync above all, the log may hold it, and a crash may bring it back.
    """
    if getattr(error, "sqlite_errorcode", -1) == sqlite3.SQLITE_FULL:
        return translate(error, file, doing)
    return CommitUnknownError(str(error))


@contextmanager
def translated(file: Path, doing: str) -> Iterator[None]:
    """Raise NearshoreErrors in place of sqlite3's within the block."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, file, doing) from error


def _is_full(folder: Path) -> bool:
    try:
        stat = os.statvfs(folder)
    except OSError:
        return False
    return stat.f_bavail * stat.f_frsize < FULL_BELOW_BYTES


def _is_out_of_handles(file: Path) -> bool:
    """Whether there are fewer than SQLite takes: for its file, log, shared memory and folder."""
    opened: list[int] = []
    try:
        while len(opened) < _HANDLES:
            opened.append(os.open(file, os.O_RDONLY))
    except OSError as error:
        return error.errno in OUT_OF_HANDLES
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False
