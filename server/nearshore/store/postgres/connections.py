"""Connections to one database: how they are opened, what their sessions are told, and a pool of them for readers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from nearshore.errors import NearshoreError
from nearshore.store.errors import StoreUnavailableError, closed
from nearshore.store.postgres import namespace
from nearshore.store.postgres.address import describe, parse
from nearshore.store.postgres.failures import code_of, translate
from nearshore.store.postgres.patience import Connection, SilentError

_T = TypeVar("_T")
_P = ParamSpec("_P")

# Nothing is inherited from the role, the database or the server that could change what a statement means. Plans are
# pinned to the indexes: the statistics of a table that was filled a second ago would have them sort it instead.
_EVERY_SESSION = """
SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
SET default_transaction_deferrable = off; SET TimeZone = 'UTC'; SET jit = off; SET plan_cache_mode = auto;
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET enable_hashjoin = off;
SET enable_mergejoin = off"""
# A writer that hangs in a transaction is ended before those that wait for its lock give up; the server looks itself
# whether a silent writer is still there. A statement_timeout would also end the wait for a synchronous standby, after
# which COMMIT succeeds all the same: so there is none.
WRITER = """
SET lock_timeout = '4s'; SET idle_in_transaction_session_timeout = '3s'; SET statement_timeout = 0;
SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '15s';
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"""
READER = """
SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '30s'; SET statement_timeout = {}"""
LISTENER = "SET statement_timeout = 0"

# A process's id comes back, and after a fail-over the name may lead to another server: the start tells them apart.
_SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_AT_WORK = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND backend_start = %s AND state <> 'idle'"

_ALIVE = ("53300", "28P01", "28000")  # what only a server that works says: too many connections, who are you
MARGIN_S = 5.0  # that the server gets beyond its own statement_timeout to tell of it
_MAX_LIFETIME_S = 1_800.0
# How long a caller waits for a connection before it looks whether making one has failed; and while it is known that
# the last attempt did.
_PATIENCE_S = 0.2
_IMPATIENCE_S = 0.05
RETRY_AFTER_S = 0.3  # after a failed attempt to connect, calls fail at once for so long


@dataclass(frozen=True, slots=True)
class Address:
    """One database, as store.url names it."""

    place: str  # may be shown
    parameters: Mapping[str, str] = field(repr=False)  # may not: the password is among them
    connect_timeout_s: float
    statement_timeout_s: float
    schema: str = ""  # of our tables; empty: the session's own search_path, with which they are looked for

    @classmethod
    def of(cls, url: str, connect_timeout_s: float, statement_timeout_s: float) -> Address:
        """Raises StoreUrlError."""
        return cls(describe(url), parse(url, connect_timeout_s), connect_timeout_s, statement_timeout_s)

    @property
    def arguments(self) -> dict[str, Any]:
        """What psycopg connects with."""
        return {**self.parameters, "autocommit": True}

    def connect_reader(self) -> Connection:
        """A new connection that reads. Raises psycopg.Error, as the other two."""
        return self._configured(Connection.connect(**self.arguments), self.configure_reader)

    def connect_listener(self) -> Connection:
        """A new connection that listens; nothing that it asks takes long."""
        return self._configured(Connection.connect(**self.arguments), self._configure_listener)

    def connect_writer(self) -> Connection:
        """A new connection that writes. The server may be silent on it as long as it is at work: at its COMMIT it may
        have to wait for a synchronous standby.
        """
        return self._configured(Connection.connect(**self.arguments), self._configure_writer)

    def configure_reader(self, connection: Connection) -> None:
        """Make the new connection one that reads. Raises psycopg.Error."""
        self._tell(connection, READER.format(round(1e3 * self.statement_timeout_s)))
        connection.silence_s = self.statement_timeout_s + MARGIN_S

    def is_at_work(self, session: tuple[Any, ...]) -> bool:
        """Whether the server, which is asked over a new connection, is busy with a statement of this session.

        One that refuses the connection, for it has none to spare or the password is another now, is alive: it is given
        the benefit of the doubt, and asked again after the next silence.
        """
        try:
            with self.connect_reader() as connection:
                connection.silence_s = self.connect_timeout_s
                return bool(connection.execute(_AT_WORK, session).fetchall())
        except psycopg.Error as error:
            return code_of(error) in _ALIVE

    def _configure_listener(self, connection: Connection) -> None:
        self._tell(connection, LISTENER)

    def _configure_writer(self, connection: Connection) -> None:
        self._tell(connection, WRITER)
        (session,) = connection.execute(_SESSION).fetchall()
        connection.silence_s = self.statement_timeout_s + MARGIN_S
        connection.at_work = partial(self.is_at_work, session)

    def _tell(self, connection: Connection, settings: str) -> None:
        """Tell a new session how to behave, in one round trip, for which there is as long as for connecting."""
        connection.silence_s = self.connect_timeout_s
        looking = namespace.setting(self.schema) if self.schema else ""
        connection.execute(f"{_EVERY_SESSION.strip()};{settings};{looking}")

    def _configured(self, connection: Connection, configure: Callable[[Connection], None]) -> Connection:
        try:
            configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection


class _Reading(Connection):
    """A connection whose failure to come about is told: the pool would only log it."""

    @classmethod
    def connect(cls, *arguments: Any, **keywords: Any) -> Self:
        failed: Callable[[psycopg.Error], None] = keywords.pop("failed")
        try:
            return super().connect(*arguments, **keywords)
        except psycopg.Error as error:
            failed(error)
            raise


class Readers:
    """Connections that any thread may borrow. While PostgreSQL is away calls fail soon, and with the cause."""

    def __init__(self, address: Address, max_connections: int) -> None:
        """Opens connections in the background, as they are needed; beyond max_connections readers wait for one, as
        long as for connecting.
        """
        # Each failure is told to the caller; the library's own lines would come for every attempt.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        self._address = address
        self._place = address.place
        self._timeout_s = address.connect_timeout_s
        self._max_connections = max_connections
        self._failure: psycopg.Error | None = None  # of the last attempt to connect, none succeeding since
        self._retry_at = 0.0
        self._pool: ConnectionPool[_Reading] = ConnectionPool(
            connection_class=_Reading,
            kwargs={**address.arguments, "failed": self._failed},
            min_size=1,
            max_size=max_connections,
            open=True,
            configure=self._connected,
            name="nearshore",
            timeout=self._timeout_s,
            max_lifetime=_MAX_LIFETIME_S,
            reconnect_timeout=0.0,  # no back-off here: whoever asks next tries again
        )

    def run(
        self, doing: str, job: Callable[Concatenate[Connection, _P], _T], *arguments: _P.args, **keywords: _P.kwargs
    ) -> _T:
        """Run job, which must only read, with a connection; once more where the connection turns out to be dead.

        Raises what failures.translate makes of PostgreSQL's errors, and StoreUnavailableError once closed.
        """
        try:
            with self._borrowed(doing) as connection:
                return job(connection, *arguments, **keywords)
        except psycopg.Error as error:
            if not _is_lost(error):
                raise translate(error, self._place, doing) from error
            self._pool.drain()  # the others are most likely dead as well
            if isinstance(error, SilentError):  # who waited so long is not made to wait as long again
                raise translate(error, self._place, doing) from error
        try:
            with self._borrowed(doing) as connection:
                return job(connection, *arguments, **keywords)
        except psycopg.Error as error:
            raise translate(error, self._place, doing) from error

    def close(self) -> None:
        """Close the connections; those in use are closed when they come back."""
        self._pool.close(self._timeout_s)

    @contextmanager
    def _borrowed(self, doing: str) -> Iterator[Connection]:
        connection = self._take(doing)
        try:
            yield connection
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise
        finally:
            self._pool.putconn(connection)

    def _take(self, doing: str) -> _Reading:
        give_up_at = time.monotonic() + self._timeout_s
        while True:
            now = time.monotonic()
            # A server without a connection to spare is none to wait for, but those of the pool may come free.
            away = self._failure is not None and code_of(self._failure) != "53300"
            if away and now < self._retry_at and not self._pool.get_stats()["pool_available"]:
                raise self._cannot_connect(doing)
            try:
                return self._pool.getconn(max(0.001, min(_IMPATIENCE_S if away else _PATIENCE_S, give_up_at - now)))
            except PoolTimeout:
                if away or now >= give_up_at:
                    raise self._cannot_connect(doing) from None
            except PoolClosed:
                raise closed() from None

    def _cannot_connect(self, doing: str) -> NearshoreError:
        failure = self._failure
        if failure is not None:
            return translate(failure, self._place, doing)
        return StoreUnavailableError(
            f"No connection to PostgreSQL at {self._place} came free within {self._timeout_s:g} s "
            f"(store.max_connections = {self._max_connections}).",
            "Retry; if it lasts, look at the load of the PostgreSQL server, or raise store.max_connections.",
        )

    def _failed(self, error: psycopg.Error) -> None:
        self._failure, self._retry_at = error, time.monotonic() + RETRY_AFTER_S

    def _connected(self, connection: _Reading) -> None:
        try:
            self._address.configure_reader(connection)
        except psycopg.Error as error:
            self._failed(error)
            raise
        self._failure = None


def _is_lost(error: psycopg.Error) -> bool:
    """Whether the connection broke while it was used, so that a new one may do better."""
    if error.sqlstate:
        return error.sqlstate.startswith(("57P", "08"))
    return isinstance(error, psycopg.OperationalError)
