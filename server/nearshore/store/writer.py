"""The store's only writing thread: gathers what its callers queued into one transaction and one fsync.

A group is what arrived during the last commit; no timer. When there is nothing to write, the thread removes the rows
of deleted collections, a few at a time, so that it is always about to be free.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from nearshore.errors import NearshoreError
from nearshore.store import commits, housekeeping, schema
from nearshore.store.base import WriteResult
from nearshore.store.errors import StoreOverloadedError, StoreUnavailableError
from nearshore.store.failures import closed, commit_failed, dead, mistaken, translate

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

MAX_WAL_BYTES = 64 << 20
# A checkpoint that meets a reader gives up soon and comes back after so much more WAL.
CHECKPOINT_RETRY_BYTES = 16 << 20
CHECKPOINT_WAIT_MS = 250
PURGE_ROWS = 500


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one transaction takes, and how much may wait."""

    max_transaction_rows: int
    max_transaction_bytes: int
    max_queued_bytes: int


@dataclass(frozen=True, slots=True)
class _Call:
    """A write that waits for its group."""

    write: commits.Write
    future: Future[WriteResult]


@dataclass(frozen=True, slots=True)
class _Job:
    """Anything else that needs a transaction of its own."""

    run: Callable[[sqlite3.Connection], Any]
    future: Future[Any]
    doing: str


class Writer:
    """Owns the writing connection and its thread."""

    def __init__(
        self, connection: sqlite3.Connection, file: Path, limits: Limits, on_death: Callable[[BaseException], None]
    ) -> None:
        """Takes over connection and starts the thread. on_death: told the error that ended it."""
        self._connection: sqlite3.Connection | None = connection
        self._file = file
        self._limits = limits
        self._on_death = on_death
        self._changed = threading.Condition()
        self._queue: deque[_Call | _Job] = deque()
        self._queued_bytes = 0
        self._refusal: Callable[[], StoreUnavailableError] | None = None  # why nothing more is taken
        self._tidying = True
        self._checkpoint_at_bytes = MAX_WAL_BYTES
        self._watchers: list[Callable[[int], None]] = []
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def watch(self, on_commit: Callable[[int], None]) -> None:
        """Call on_commit(collection_id) from the writer thread after each commit."""
        self._watchers.append(on_commit)

    def submit(self, write: commits.Write) -> Future[WriteResult]:
        """Queue a write; its future resolves after COMMIT has returned."""
        future: Future[WriteResult] = Future()
        size_bytes = write.rows.size_bytes
        with self._changed:
            if self._refusal is not None:
                future.set_exception(self._refusal())
            elif self._queued_bytes and self._queued_bytes + size_bytes > self._limits.max_queued_bytes:
                future.set_exception(StoreOverloadedError(self._limits.max_queued_bytes))
            else:
                self._queued_bytes += size_bytes
                self._queue.append(_Call(write, future))
                self._changed.notify()
        return future

    def run(self, job: Callable[[sqlite3.Connection], _T], doing: str) -> _T:
        """Run job in a transaction of its own, in turn with the writes; returns or raises what it does."""
        future: Future[_T] = Future()
        with self._changed:
            if self._refusal is not None:
                raise self._refusal()
            self._queue.append(_Job(job, future, doing))
            self._changed.notify()
        return future.result()

    def tidy(self) -> None:
        """Remove the rows of deleted collections and shrink the file, whenever there is nothing to write."""
        with self._changed:
            self._tidying = True
            self._changed.notify()

    def close(self) -> None:
        """Write what is queued, then stop the thread and close the connection."""
        with self._changed:
            self._refusal = self._refusal or closed
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                try:
                    self._serve(group)
                    self._checkpoint()
                except Exception:  # the thread must outlive any mistake: every later write depends on it
                    _log.exception("store writer met a mistake")
                finally:
                    _refuse(group, mistaken)
        except BaseException as error:  # whatever it was, nobody may wait for a thread that is gone
            self._die(error)
        if self._connection is not None:
            self._connection.close()  # as the last connection it checkpoints and removes the WAL

    def _die(self, error: BaseException) -> None:
        """Answer everybody, tell who can end the process, and only then log: logging may be what failed."""
        with self._changed:
            self._refusal = dead
            left, self._queue = self._queue, deque()
        _refuse(left, dead)
        self._on_death(error)
        _log.error("store writer died", exc_info=error)

    def _next_group(self) -> Sequence[_Call | _Job] | None:
        """The next tasks for one transaction; empty when it is time to tidy, None when it is time to stop."""
        with self._changed:
            while not self._queue:
                if self._refusal is not None:
                    return None
                if self._tidying:
                    return ()
                self._changed.wait()
            group: list[_Call | _Job] = [self._queue.popleft()]
            if isinstance(group[0], _Job):
                return group
            rows, size_bytes = len(group[0].write.rows), group[0].write.rows.size_bytes
            while self._queue and isinstance(call := self._queue[0], _Call):
                rows += len(call.write.rows)
                size_bytes += call.write.rows.size_bytes
                if rows > self._limits.max_transaction_rows or size_bytes > self._limits.max_transaction_bytes:
                    break
                group.append(self._queue.popleft())
            self._queued_bytes -= sum(call.write.rows.size_bytes for call in group if isinstance(call, _Call))
            return group

    def _serve(self, group: Sequence[_Call | _Job]) -> None:
        wanted = [task for task in group if task.future.set_running_or_notify_cancel()]
        calls = [task for task in wanted if isinstance(task, _Call)]
        if calls:
            self._answer_calls(calls)
        for job in wanted:
            if isinstance(job, _Job):
                self._answer_job(job)
        if not group:
            self._tidy_some()

    def _answer_job(self, job: _Job) -> None:
        try:
            result = self._transact(job.run, job.doing)
        except NearshoreError as error:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    def _answer_calls(self, calls: Sequence[_Call]) -> None:
        writes = [call.write for call in calls]
        try:
            results = self._transact(lambda connection: commits.apply_writes(connection, writes), "writing documents")
        except NearshoreError as error:
            for call in calls:
                call.future.set_exception(error)
            return
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, WriteResult):
                call.future.set_result(result)
            else:
                call.future.set_exception(result)
        for collection_id in {result.commit.collection_id for result in results if isinstance(result, WriteResult)}:
            self._notify(collection_id)

    def _notify(self, collection_id: int) -> None:
        for on_commit in self._watchers:
            try:
                on_commit(collection_id)
            except Exception:  # a watcher's mistake must not stop the writes
                _log.exception("store watcher failed")

    def _transact(self, run: Callable[[sqlite3.Connection], _T], doing: str) -> _T:
        """Run and commit one transaction. Whatever fails is rolled back and raised as a NearshoreError."""
        committing = False
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            result = run(connection)
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

    def _tidy_some(self) -> None:
        try:
            more = self._transact(
                lambda connection: housekeeping.purge(connection, PURGE_ROWS) or housekeeping.shrink(connection),
                "removing old rows",
            )
        except NearshoreError as error:
            _log.warning("store could not remove old rows", error=str(error))
            more = False  # taken up again by the next deletion or start
        if not more:
            with self._changed:
                self._tidying = False

    def _checkpoint(self) -> None:
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
            _log.warning("store checkpoint failed", error=str(error))
            busy, size_bytes = 1, self._checkpoint_at_bytes
        self._checkpoint_at_bytes = size_bytes + CHECKPOINT_RETRY_BYTES if busy else MAX_WAL_BYTES


def _refuse(tasks: Iterable[_Call | _Job], error: Callable[[], NearshoreError]) -> None:
    """Fail those that have no answer yet."""
    for task in tasks:
        with contextlib.suppress(InvalidStateError):  # it has its answer, or its caller has left
            task.future.set_exception(error())
