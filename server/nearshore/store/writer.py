"""A process's only writing thread: gathers what its callers queued into one transaction.

A group is what arrived during the last commit; no timer. When there is nothing to write, the thread removes the rows
of deleted collections, a few at a time, so that it is always about to be free. What a transaction is, a Session knows.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog

from nearshore.errors import CommitUnknownError, NearshoreError
from nearshore.store.base import WriteResult
from nearshore.store.errors import StoreOverloadedError, StoreUnavailableError, closed, dead, mistaken
from nearshore.store.rows import Write

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_C = TypeVar("_C")  # the session's connection
_C_co = TypeVar("_C_co", covariant=True)

PURGE_ROWS = 500
PRUNE_ROWS = 1_000  # of one kind, a transaction
REPORT = "The server goes on; report it with this traceback."
DIED = "The process ends, for it could write no more: restart it. What was acknowledged is safe; see the traceback."
REMOVED_LATER = "It is tried again at the next deletion or start; free what `error` names, or bring the store back."
REST_EVERY_S = 0.02
LEFT_BEHIND = (
    "Nothing that was acknowledged is lost. See what the store waits for: its disk, its network, or a standby."
)
CLOSE_GRACE_S = 5.0
INTERRUPT_S = 2.0
_INTERRUPT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one transaction takes, and how much may wait."""

    max_transaction_rows: int
    max_transaction_bytes: int
    max_queued_bytes: int


class Session(Protocol[_C_co]):
    """The transactions of the writing thread, which alone uses it. Errors are NearshoreErrors."""

    def apply(self, writes: Sequence[Write]) -> Sequence[WriteResult | NearshoreError]:
        """Commit writes, those of one collection at one position; raises what concerns them all."""

    def run(self, job: Callable[[_C_co], _T], doing: str) -> _T:
        """Run and commit job in a transaction of its own."""

    def rest(self) -> None:
        """Do what can wait until callers have their answers. Must not raise."""

    def tidy(self, max_rows: int) -> bool:
        """Remove some rows of deleted collections. Returns False when nothing was left to do."""

    def interrupt(self) -> None:
        """Let what hangs end soon, its outcome unknown. Called by another thread, again and again; must not raise."""

    def close(self) -> None:
        """Release the connection."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A write that waits for its group."""

    write: Write
    future: Future[WriteResult]


@dataclass(frozen=True, slots=True)
class _Job:
    """Anything else that needs a transaction of its own."""

    run: Callable[[Any], Any]
    future: Future[Any]
    doing: str


class Writer(Generic[_C]):
    """Owns the session and its thread."""

    def __init__(self, session: Session[_C], limits: Limits, on_death: Callable[[BaseException], None]) -> None:
        """Takes over session and starts the thread. on_death: told the error that ended it."""
        self._session = session
        self._limits = limits
        self._on_death = on_death
        self._changed = threading.Condition()
        self._queue: deque[_Call | _Job] = deque()
        self._queued_bytes = 0
        self._refusal: Callable[[], StoreUnavailableError] | None = None  # why nothing more is taken
        self._group: Sequence[_Call | _Job] = ()  # what is being written
        self._left_behind = False
        self._tidying = True
        self._rested_at = 0.0
        self._watchers: list[Callable[[int], None]] = []
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def watch(self, on_commit: Callable[[int], None]) -> None:
        """Call on_commit(collection_id) from the writer thread after each commit."""
        self._watchers.append(on_commit)

    def submit(self, write: Write) -> Future[WriteResult]:
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

    def run(self, job: Callable[[_C], _T], doing: str) -> _T:
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
        """Write what is queued, then stop the thread and close the connection.

        After CLOSE_GRACE_S what has not begun is refused, and what hangs, in waiting for a standby say, is interrupted.
        What cannot be interrupted within INTERRUPT_S is left behind with its thread, and its callers are told so.
        """
        with self._changed:
            self._refusal = self._refusal or closed
            self._changed.notify()
        self._thread.join(CLOSE_GRACE_S)
        give_up_at = time.monotonic() + INTERRUPT_S
        while self._thread.is_alive() and time.monotonic() < give_up_at:
            with self._changed:
                left, self._queue = self._queue, deque()
            _refuse(left, closed)
            self._session.interrupt()
            self._thread.join(_INTERRUPT_EVERY_S)
        if self._thread.is_alive():
            self._left_behind = True
            if not all(task.future.done() for task in self._group):
                _log.warning("store was closed while it did not answer", remedy=LEFT_BEHIND)
            _refuse(self._group, lambda: CommitUnknownError("the store was closed while it did not answer"))

    def join(self) -> None:
        """Wait for the thread that close() may have left behind, however long."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                self._group = group
                try:
                    self._serve(group)
                    self._rest()
                except Exception:  # the thread must outlive any mistake: every later write depends on it
                    if not self._left_behind:  # else the callers have their answer
                        _log.exception("store writer met a mistake", remedy=REPORT)
                finally:
                    _refuse(group, mistaken)
        except BaseException as error:  # whatever it was, nobody may wait for a thread that is gone
            self._die(error)
        self._session.close()

    def _die(self, error: BaseException) -> None:
        """Answer everybody, tell who can end the process, and only then log: logging may be what failed."""
        with self._changed:
            self._refusal = dead
            left, self._queue = self._queue, deque()
        _refuse(left, dead)
        self._on_death(error)
        _log.error("store writer died", exc_info=error, remedy=DIED)

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

    def _rest(self) -> None:
        """Let the session rest when nobody waits, and now and then while somebody does."""
        now = time.monotonic()
        if not self._queue or now - self._rested_at >= REST_EVERY_S:
            self._rested_at = now
            self._session.rest()

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
            result = self._session.run(job.run, job.doing)
        except NearshoreError as error:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    def _answer_calls(self, calls: Sequence[_Call]) -> None:
        try:
            results = self._session.apply([call.write for call in calls])
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
            self.tell(collection_id)

    def tell(self, collection_id: int) -> None:
        """Call the watchers."""
        for on_commit in self._watchers:
            try:
                on_commit(collection_id)
            except Exception:  # a watcher's mistake must not stop the writes
                _log.exception("store watcher failed", remedy=REPORT)

    def _tidy_some(self) -> None:
        try:
            more = self._session.tidy(PURGE_ROWS)
        except NearshoreError as error:
            _log.warning("store could not remove old rows", error=str(error), remedy=REMOVED_LATER)
            more = False  # taken up again by the next deletion or start
        if not more:
            with self._changed:
                self._tidying = False


def _refuse(tasks: Iterable[_Call | _Job], error: Callable[[], NearshoreError]) -> None:
    """Fail those that have no answer yet."""
    for task in tasks:
        with contextlib.suppress(InvalidStateError):  # it has its answer, or its caller has left
            task.future.set_exception(error())
