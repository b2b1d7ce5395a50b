"""A pool of read-only connections.

A reader holds its snapshot for one page, never longer: while one is open, the WAL cannot be truncated.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearshore.store.errors import closed
from nearshore.store.failures import translated
from nearshore.store.schema import open_for_reading


class Readers:
    """Read-only connections that any thread may borrow."""

    def __init__(self, file: Path, max_connections: int) -> None:
        """Opens connections as they are needed; beyond max_connections readers wait for each other."""
        self._file = file
        self._free = threading.BoundedSemaphore(max_connections)
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @contextmanager
    def transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction: one state of the store for the whole block.

        Raises what failures.translate makes of SQLite's errors, and UnavailableError once closed.
        """
        with self._free, translated(self._file, doing):
            connection = self._take()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self._give_back(connection)

    def close(self) -> None:
        """Close the idle connections; those in use are closed when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise closed()
            if self._idle:
                return self._idle.pop()
        return open_for_reading(self._file)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.close()
            return
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()
