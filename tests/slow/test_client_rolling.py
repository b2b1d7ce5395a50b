"""Programs that write and read through three replicas on one PostgreSQL, while each of these goes and comes back."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nearshore.client import Client, Document, Query
from tests.balanced import BalancedServers, Start
from tests.ports import HOSTS
from tests.postgres import ABSENT, PostgresServer, programs

COLLECTION = "docs"
WRITERS = 4
KEYS = 20


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that the test may stop."""
    if programs() is None:
        pytest.skip(ABSENT)
    with PostgresServer() as running:
        yield running


class Writer:
    """Writes ever newer versions of documents of its own, and finds each right after, on whichever replica."""

    def __init__(self, target: str, name: int, stopping: threading.Event) -> None:
        self.acknowledged: dict[str, int] = {}  # id -> version
        self.rounds = 0
        self._target = target
        self._name = name
        self._stopping = stopping

    def run(self) -> None:
        """Until stopping. Any failed call and any stale answer ends it."""
        with Client(self._target) as client:
            for version in itertools.count(1):
                if self._stopping.is_set():
                    return
                key = f"{self._name}-{version % KEYS}"
                client.upsert(COLLECTION, [Document(key, f"cat {version}", metadata={"version": version})])
                self.acknowledged[key] = version
                self._read_back(client, key)
                self.rounds += 1

    def _read_back(self, client: Client, key: str) -> None:
        version = self.acknowledged[key]
        (found,) = client.get(COLLECTION, [key]).documents
        assert found.metadata["version"] == version
        wanted = f'_id = "{key}" AND version = {version}'
        (hit,) = client.search(COLLECTION, Query(text="cat", filter=wanted)).hits
        assert hit.document.text == f"cat {version}"


def test_programs_notice_nothing(server_process: Start, tmp_path: Path, postgres: PostgresServer) -> None:
    """Replicas restart and are killed, PostgreSQL is away for a while: no call fails, no write is lost or read late."""
    servers = BalancedServers(server_process, tmp_path, NEARSHORE_STORE__URL=postgres.create_database())
    stopping = threading.Event()
    with Client(servers.target) as client, ThreadPoolExecutor(WRITERS) as pool:
        client.create_collection(COLLECTION, model="tiny")
        writers = [Writer(servers.target, number, stopping) for number in range(WRITERS)]
        running = [pool.submit(writer.run) for writer in writers]
        try:
            for host in HOSTS:
                servers.restart(host)
                servers.kill(host)
            postgres.stop("immediate")
            postgres.start()
            servers.restart(HOSTS[0])
        finally:
            stopping.set()
        for each in running:
            each.result()
        for writer in writers:
            assert writer.rounds > KEYS
            found = client.get(COLLECTION, list(writer.acknowledged)).documents
            assert {each.id: each.metadata["version"] for each in found} == writer.acknowledged
