"""One client and several replicas: calls go to all of them, and none fails because one of them goes."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nearshore.client import AsyncClient, Client, Document
from nearshore.exit_codes import ExitCode
from tests.servers import ServerProcess

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
COLLECTION = "docs"
Start = Callable[..., ServerProcess]


def free_port() -> int:
    """A port that is free on all hosts, and that no connection on its way out will be given."""
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            for host in HOSTS:
                socket.create_server((host, port)).close()
        except OSError:
            continue
        return port


class Replicas:
    """Server processes on one port of several addresses, each with a store of its own, which tells them apart."""

    def __init__(self, start: Start, folder: Path) -> None:
        self._start = start
        self._folder = folder
        self.port = free_port()
        self.target = "ipv4:" + ",".join(f"{host}:{self.port}" for host in HOSTS)
        self.processes: dict[str, ServerProcess] = {}
        with ThreadPoolExecutor(len(HOSTS)) as pool:
            list(pool.map(self.start, HOSTS))
        for number, host in enumerate(HOSTS, 1):
            with Client(f"{host}:{self.port}") as client:
                client.create_collection(COLLECTION, model="tiny")
                client.upsert(COLLECTION, [Document(str(n), f"cat {n}") for n in range(number)])

    def start(self, host: str) -> None:
        """Start one, and wait until it is ready."""
        self.processes[host] = self._start(
            NEARSHORE_DATA_DIR=str(self._folder / host),
            NEARSHORE_SERVER__HOST=host,
            NEARSHORE_SERVER__PORT=str(self.port),
            NEARSHORE_SERVER__DRAIN_S="0.2",
            NEARSHORE_SERVER__MAX_CONNECTION_AGE_S="1",
            NEARSHORE_EMBEDDING__WORKERS="1",
        )
        self.processes[host].wait_for("Ready")

    def restart(self, host: str) -> None:
        """End one as Kubernetes does, and start it again."""
        self.processes[host].process.send_signal(signal.SIGTERM)
        assert self.processes[host].wait() == ExitCode.OK
        self.start(host)


@pytest.fixture
def replicas(server_process: Start, tmp_path: Path) -> Replicas:
    """Three of them."""
    return Replicas(server_process, tmp_path)


class Load:
    """Callers that go on until they are stopped; an error ends the caller, and is shown by stop()."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._stopping = threading.Event()
        self.calls: Counter[str] = Counter()
        self._pool = ThreadPoolExecutor(4)
        callers = [self._search, self._upsert, self._embed, lambda: asyncio.run(self._count())]
        self._callers = [self._pool.submit(caller) for caller in callers]

    def stop(self) -> None:
        """Raises what any of them failed with."""
        self._stopping.set()
        self._pool.shutdown()
        for caller in self._callers:
            caller.result()

    def _search(self) -> None:
        with Client(self._target) as client:
            while not self._stopping.wait(0.01):
                client.search(COLLECTION, "a cat")
                self.calls["search"] += 1

    def _upsert(self) -> None:
        with Client(self._target, read_own_writes=False) as client:
            for n in itertools.count():
                if self._stopping.wait(0.02):
                    return
                client.upsert(COLLECTION, [Document(f"written-{n}", f"dog {n}")])
                self.calls["upsert"] += 1

    def _embed(self) -> None:
        with Client(self._target) as client:
            while not self._stopping.wait(0.01):
                client.embed(["a red bird"])
                self.calls["embed"] += 1

    async def _count(self) -> None:
        async with AsyncClient(self._target) as client:
            while not self._stopping.is_set():
                await asyncio.gather(*(client.count(COLLECTION) for _ in range(4)))
                self.calls["count"] += 4
                await asyncio.sleep(0.02)


def test_calls_go_to_every_replica_and_none_fails_while_they_restart(replicas: Replicas) -> None:
    """Each gets its share; connections that age, replicas that drain and one that is killed cost no call."""
    with Client(replicas.target) as client:
        while len({client.count(COLLECTION) for _ in HOSTS}) < len(HOSTS):
            pass  # not all are connected yet
        shares = Counter(client.count(COLLECTION) for _ in range(60))
    assert all(shares[number] >= 10 for number in (1, 2, 3)), shares
    load = Load(replicas.target)
    for host in HOSTS:
        replicas.restart(host)
    replicas.processes[HOSTS[0]].kill()
    replicas.start(HOSTS[0])
    load.stop()
    assert all(load.calls[method] > 50 for method in ("search", "upsert", "embed", "count")), load.calls
