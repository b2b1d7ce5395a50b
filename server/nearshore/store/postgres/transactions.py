"""The writing connection, opened when it is needed, and transactions whose outcome is known, or said not to be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from nearshore.errors import CommitUnknownError
from nearshore.store.postgres.connections import RETRY_AFTER_S, Address
from nearshore.store.postgres.failures import commit_failed, translate
from nearshore.store.postgres.patience import Connection, SilentError

_T = TypeVar("_T")
_CANCEL_TIMEOUT_S = 2.0


class Transaction:
    """One transaction on the writing connection."""

    def __init__(self, connection: Connection) -> None:
        """connection: idle."""
        self.connection = connection
        self.committing = False
        self._warnings: list[str] = []

    def begin(self) -> None:
        """Begin; may stand in a pipeline."""
        self.connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")

    @contextmanager
    def commit(self, pipeline: AbstractContextManager[object] | None = None) -> Iterator[None]:
        """Send the block's statements and COMMIT in one go. Raises psycopg.Error and CommitUnknownError.

        pipeline: the one that the transaction began in, which is left; otherwise they have one of their own.
        """
        self.connection.add_notice_handler(self._heed)
        try:
            with pipeline or self.connection.pipeline():
                yield
                self.committing = True
                done = self.connection.execute("COMMIT")
        finally:
            self.connection.remove_notice_handler(self._heed)
        if done.statusmessage != "COMMIT":  # a failed transaction answers ROLLBACK, and calls that success
            raise errors.InFailedSqlTransaction(f"COMMIT was answered by {done.statusmessage}")
        if self._warnings:  # the wait for a synchronous standby was cancelled: the commit may be on one machine only
            raise CommitUnknownError(f"PostgreSQL warned at its commit: {self._warnings[0]}")

    def _heed(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warnings.append(notice.message_primary or "")


class Transactions:
    """Owns the writing connection. Used by the writing thread alone, but for interrupt()."""

    def __init__(self, address: Address, connection: Connection) -> None:
        """Takes over connection, made by Address.connect_writer."""
        self._address = address
        self._connection: Connection | None = connection
        self.process_id = connection.info.backend_pid  # of the server, behind the connection
        self._failure: psycopg.Error | None = None  # of the last attempt to connect
        self._retry_at = 0.0

    @property
    def connection(self) -> Connection | None:
        """The connection, where there is one."""
        return self._connection

    def run(self, job: Callable[[Transaction], _T], doing: str) -> _T:
        """Run job, which begins and commits, or leaves what is to be rolled back.

        A connection that turns out to be dead before the commit is replaced, once. Raises what failures.translate
        makes of PostgreSQL's errors, and CommitUnknownError.
        """
        reused = self._connection is not None
        try:
            return self._attempt(job, doing, may_be_stale=reused)
        except _StaleError:
            return self._attempt(job, doing, may_be_stale=False)

    def interrupt(self) -> None:
        """Ask PostgreSQL to give up what it is doing: a COMMIT that waits for a standby then tells that it did not."""
        connection = self._connection
        if connection is not None:
            try:
                connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
            except psycopg.Error:  # PostgreSQL is away or frozen, so nobody but us will end the wait
                connection.abandoned = True

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def give_up(self) -> None:
        """Leave no transaction open; a connection that cannot do that is replaced at the next use."""
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.rollback()
        except psycopg.Error:
            self.close()
        if connection.closed:
            self.close()

    def _attempt(self, job: Callable[[Transaction], _T], doing: str, *, may_be_stale: bool) -> _T:
        transaction = Transaction(self._open(doing))
        try:
            return job(transaction)
        except psycopg.Error as error:
            lost = transaction.connection.closed
            if transaction.committing:
                refused = _is_refusal(error)
                if not refused:
                    self.close()  # it may still be in the midst of its pipeline
                raise commit_failed(error, self._address.place, doing, lost=not refused) from error
            if lost and may_be_stale and not isinstance(error, SilentError):  # that one was waited for long enough
                raise _StaleError from error
            raise translate(error, self._address.place, doing) from error
        finally:
            self.give_up()

    def _open(self, doing: str) -> Connection:
        if self._connection is not None:
            return self._connection
        if self._failure is not None and time.monotonic() < self._retry_at:
            raise translate(self._failure, self._address.place, doing)
        try:
            self._connection = self._address.connect_writer()
        except psycopg.Error as error:
            self._failure, self._retry_at = error, time.monotonic() + RETRY_AFTER_S
            raise translate(error, self._address.place, doing) from error
        self._failure = None
        self.process_id = self._connection.info.backend_pid
        return self._connection


def _is_refusal(error: psycopg.Error) -> bool:
    """Whether PostgreSQL said that the transaction failed.

    Nothing else tells that: a session that is ended may have committed before, and psycopg may trip over the last
    messages of its server with an error of its own while the connection still counts as open.
    """
    return isinstance(error, errors.InFailedSqlTransaction) or error.diag.severity_nonlocalized == "ERROR"


class _StaleError(Exception):
    """The connection had died while nobody used it; nothing was committed."""
