"""One client and several replicas: calls go to all of them, and none fails because one of them goes."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nearshore.client import AsyncClient, Client, Document
from tests.balanced import BalancedServers, Start
from tests.ports import HOSTS

COLLECTION = "docs"


@pytest.fixture
def servers(server_process: Start, tmp_path: Path) -> BalancedServers:
    """Three of them, each with a store of its own: the first holds one document, the second two, the third three."""
    running = BalancedServers(server_process, tmp_path)
    for number, address in enumerate(running.addresses, 1):
        with Client(address) as client:
            client.create_collection(COLLECTION, model="tiny")
            client.upsert(COLLECTION, [Document(str(n), f"cat {n}") for n in range(number)])
    return running


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


def test_calls_go_to_every_replica_and_none_fails_while_they_restart(servers: BalancedServers) -> None:
    """Each gets its share; connections that age, replicas that drain and one that is killed cost no call."""
    with Client(servers.target) as client:
        while len({client.count(COLLECTION) for _ in HOSTS}) < len(HOSTS):
            pass  # not all are connected yet
        shares = Counter(client.count(COLLECTION) for _ in range(60))
    assert all(shares[number] >= 10 for number in (1, 2, 3)), shares
    load = Load(servers.target)
    for host in HOSTS:
        servers.restart(host)
    servers.kill(HOSTS[0])
    load.stop()
    assert all(load.calls[method] > 50 for method in ("search", "upsert", "embed", "count")), load.calls
