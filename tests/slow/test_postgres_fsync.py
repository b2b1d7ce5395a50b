"""An immediate stop keeps the page cache, so only PostgreSQL's system calls show that what it said was on the disk.

The shim is preloaded into PostgreSQL and into a process that writes; both note into one file.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.disk_shim import compile_shim, environment, needs_compiler, unsynced_acknowledgements
from tests.postgres import ABSENT, PostgresServer, programs

pytestmark = pytest.mark.skipif(programs() is None, reason=ABSENT)
ACKNOWLEDGE = """
import os, sys
from nearshore import logs
logs.configure("error", "json")  # not to standard output
from benchmarks.shared_keys import open_store
from tests.stores import SPEC, upsert
from nearshore.records import Delete
store = open_store(sys.argv[1])
id = store.create_collection(SPEC).id
os.write(1, b"created\\n")
for number in range(100):
    store.write(id, [upsert(str(number)), Delete(str(number - 2))], str(number)).result()
    os.write(1, b"acknowledged\\n")
store.prune(id, -1.0)
os.write(1, b"pruned\\n")
os._exit(0)
"""
Trace = Callable[..., list[str]]


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Trace]:
    """A function that writes to a PostgreSQL of these options and returns the syncs and acknowledgements in order."""
    servers: list[PostgresServer] = []

    def traced(*options: str, prepare: str = "") -> list[str]:
        # A writer in the background would write of its own accord between a sync and its acknowledgement.
        server = PostgresServer(options=["wal_writer_delay = 10s", *options])
        servers.append(server)
        log = server.folder / "trace"
        log.touch()
        log.chmod(0o666)
        shim = {"LD_PRELOAD": str(compile_shim(server.folder)), "SHIM_LOG": str(log)}
        server.environment.update(shim)
        server.start()
        if prepare:
            with server.connect() as connection:
                connection.execute(prepare.encode())
        command = [sys.executable, "-c", ACKNOWLEDGE, server.create_database()]
        begun = len(events(log))
        subprocess.run(command, check=True, env=environment(**shim), stdout=subprocess.DEVNULL)
        return events(log)[begun:]

    yield traced
    for server in servers:
        server.close()


def events(log: Path) -> list[str]:
    """Writes and syncs of the write-ahead log, and lines on standard output, in their order."""
    lines = log.read_text().splitlines()
    return [line for line in lines if line.endswith("stdout") or ("/pg_wal/" in line and "xlogtemp" not in line)]


@needs_compiler
@pytest.mark.parametrize("prepare", ["", "ALTER ROLE postgres SET synchronous_commit = off"])
def test_every_acknowledgement_comes_after_a_sync(trace: Trace, prepare: str) -> None:
    """Creations, writes and prunes are answered only after the log was synced, whatever the role's settings say."""
    assert unsynced_acknowledgements(trace(prepare=prepare)) == []


@needs_compiler
def test_the_trace_shows_missing_syncs(trace: Trace) -> None:
    """With fsync off the same check reports unsynced acknowledgements: it would notice a change."""
    assert len(unsynced_acknowledgements(trace("fsync = off"))) > 90
