"""A server that is asked to stop ends, whatever its PostgreSQL does or does not do."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest

from nearshore.client import NO_RETRIES, Client
from nearshore.errors import NearshoreError
from nearshore.exit_codes import ExitCode
from tests.postgres import ABSENT, PostgresServer, programs
from tests.servers import ServerProcess

FULL = "TOO_MANY_STORE_CALLS"
Start = Callable[..., ServerProcess]
Hanging = tuple[ServerProcess, Client]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL beside the one that all tests share, which may hang."""
    if programs() is None:
        pytest.skip(ABSENT)
    with PostgresServer(options=["fsync = off"]) as running:
        yield running


@pytest.fixture
def started(server_process: Start, postgres: PostgresServer) -> Iterator[Hanging]:
    """A ready server that lets one call at a time wait for the store, and a client of it."""
    process = server_process(
        NEARSHORE_STORE__URL=postgres.create_database(),
        NEARSHORE_SERVER__GRACE_S="0.1",
        NEARSHORE_SERVER__MAX_CONCURRENT_CALLS="2",
    )
    with Client(process.address(), retries=NO_RETRIES) as client:
        client.wait_ready()
        yield process, client


@contextmanager
def creation_waits_for_standby(postgres: PostgresServer, client: Client) -> Iterator[None]:
    """During the block the commit of a creation waits for a synchronous standby that does not exist."""
    with postgres.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        try:
            for number in count():  # PostgreSQL tells no moment from which on commits wait
                creation = pool.submit(create, client, f"more-{number}")
                while not (waits := waits_for_standby(connection)) and not creation.done():
                    pass
                if waits:
                    break
            yield
        finally:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
            connection.execute("SELECT pg_reload_conf()")


def waits_for_standby(connection: psycopg.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return found.fetchone() is not None


@contextmanager
def frozen_in_creation(postgres: PostgresServer, client: Client) -> Iterator[None]:
    """During the block PostgreSQL is frozen, and a creation waits for it."""
    with postgres.frozen(), ThreadPoolExecutor(2) as pool:
        creations = [pool.submit(create, client, name) for name in ("one", "two")]
        assert next(as_completed(creations)).result() == FULL  # so the other one has the only place
        yield


def create(client: Client, name: str) -> str:
    """The reason with which a creation is refused; empty for none."""
    try:
        client.create_collection(name, dimensions=2)
    except NearshoreError as error:
        return error.reason
    return ""


def test_it_stops_while_a_creation_waits_for_a_missing_standby(started: Hanging, postgres: PostgresServer) -> None:
    """Closing the store ends the wait, so that nothing hangs at the end."""
    process, client = started
    with creation_waits_for_standby(postgres, client):
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == ExitCode.OK
    assert not any("parts of the server hang" in line for line in process.lines)
    assert '"event": "Stopped"' in process.lines[-1]


def test_it_stops_while_its_postgresql_is_frozen(started: Hanging, postgres: PostgresServer) -> None:
    """Nothing can interrupt what waits for it: the log names what is left behind, and the process ends all the same."""
    process, client = started
    with frozen_in_creation(postgres, client):
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == ExitCode.OK


def test_a_second_signal_ends_it_at_once_while_its_postgresql_is_frozen(
    started: Hanging, postgres: PostgresServer
) -> None:
    """The event loop hears it, whatever is being closed."""
    process, client = started
    with frozen_in_creation(postgres, client):
        process.process.send_signal(signal.SIGTERM)
        process.wait_for("Closing")
        assert process.insist(signal.SIGTERM) == ExitCode.INTERRUPTED
