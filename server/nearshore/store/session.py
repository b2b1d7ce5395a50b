"""SQLite's side of the writing thread: its connection, its transactions, and its checkpoints."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from nearshore.errors import NearshoreError
from nearshore.store import commits, housekeeping, schema
from nearshore.store.base import WriteResult
from nearshore.store.failures import commit_failed, translate
from nearshore.store.rows import Write

_log = structlog.get_logger(__name__)
CHECKPOINT_FAILED = "It is tried again after more writes; see that the disk has room, for the log of writes grows."
_T = TypeVar("_T")

MAX_WAL_BYTES = 64 << 20
# A checkpoint that meets a reader gives up soon and comes back after so much more WAL.
CHECKPOINT_RETRY_BYTES = 16 << 20
CHECKPOINT_WAIT_MS = 250


class SqliteSession:
    """Implements writer.Session over the only writing connection."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        """Takes over connection."""
        self._connection: sqlite3.Connection | None = connection
        self._file = file
        self._checkpoint_at_bytes = MAX_WAL_BYTES

    def apply(self, writes: Sequence[Write]) -> Sequence[WriteResult | NearshoreError]:
        """See Session: one transaction and one fsync for all of them."""
        return self.run(lambda connection: commits.apply_writes(connection, writes), "writing documents")

    def tidy(self, max_rows: int) -> bool:
        """See Session; then gives empty pages back to the file system."""
        return self.run(
            lambda connection: housekeeping.purge(connection, max_rows) or housekeeping.shrink(connection),
            "removing old rows",
        )

    def interrupt(self) -> None:
        """See Session: nothing ends the wait for a disk."""

    def close(self) -> None:
        """Close the connection: as the last one it checkpoints and removes the WAL."""
        if self._connection is not None:
            self._connection.close()

    def run(self, job: Callable[[sqlite3.Connection], _T], doing: str) -> _T:
        """See Session. Whatever fails is rolled back."""
        committing = False
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            result = job(connection)
            committing = True
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise (commit_failed if committing else translate)(error, self._file, doing) from error
        except BaseException:
            self._roll_back()
            raise
        return result

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = schema.open_for_writing(self._file)
        return self._connection

    def _roll_back(self) -> None:
        """Leave no transaction open; a connection that cannot even do that is replaced at the next write."""
        if self._connection is None or not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            self._connection = None

    def rest(self) -> None:
        """Move the WAL into the file and truncate it once it has grown large."""
        wal = self._file.with_name(f"{self._file.name}-wal")
        try:
            if wal.stat().st_size < self._checkpoint_at_bytes:
                return
            connection = self._open()
            connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_WAIT_MS}")
            try:
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
            finally:
                connection.execute(f"PRAGMA busy_timeout = {schema.BUSY_TIMEOUT_MS}")
            size_bytes = wal.stat().st_size
        except (sqlite3.Error, OSError) as error:
            _log.warning("store checkpoint failed", error=str(error), remedy=CHECKPOINT_FAILED)
            busy, size_bytes = 1, self._checkpoint_at_bytes
        self._checkpoint_at_bytes = size_bytes + CHECKPOINT_RETRY_BYTES if busy else MAX_WAL_BYTES
