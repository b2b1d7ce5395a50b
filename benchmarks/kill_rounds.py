"""Kill -9 under load, again and again: nothing acknowledged may be lost, nothing deleted may come back.

Writers own disjoint ids, so each knows the last acknowledged state of its own and at most one call in flight, which
may have happened wholly or not at all. After every restart the store's file (read without the server), the
server's list, and searches must all show one of those two states.
"""

import random
import sqlite3
import threading
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.server_process import ServerProcess
from nearshore.client import Client, Query
from nearshore.errors import NearshoreError
from nearshore.records import F32, Document
from nearshore.store.schema import FILE_NAME

COLLECTION = "rounds"
DIMENSIONS = 16
WRITERS = 4
IDS_EACH = 60
State = dict[str, int]  # id -> version; absent: deleted or never written


def vector_of(document_id: str, version: int) -> F32:
    """A unit vector that no other version has, (DIMENSIONS,)."""
    generator = np.random.default_rng(zlib.crc32(f"{document_id}@{version}".encode()))
    drawn = generator.standard_normal(DIMENSIONS).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


@dataclass
class Writer:
    """One caller with ids of its own. `acknowledged` is what must be there; `in_flight` what may be."""

    number: int
    acknowledged: State = field(default_factory=dict)
    in_flight: State | None = None
    calls: int = 0
    version: int = 0

    def run(self, address: str, seed: int) -> None:
        """Write until the server is gone."""
        dice = random.Random(seed)
        with Client(address, timeout_s=30.0) as client:
            while True:
                upserts, deletes = self._choose(dice)
                wanted = {key: value for key, value in self.acknowledged.items() if key not in deletes} | upserts
                self.in_flight = wanted
                try:
                    self._send(client, upserts, deletes)
                except NearshoreError:
                    return
                self.acknowledged, self.in_flight = wanted, None
                self.calls += 1

    def _choose(self, dice: random.Random) -> tuple[State, list[str]]:
        ids = [f"writer-{self.number}/{n}" for n in dice.sample(range(IDS_EACH), dice.randint(1, 12))]
        if dice.random() < 0.35:
            return {}, ids
        self.version += 1
        return dict.fromkeys(ids, self.version), []

    def _send(self, client: Client, upserts: State, deletes: list[str]) -> None:
        if deletes:
            client.delete(COLLECTION, ids=deletes)
            return
        documents = [Document(key, f"{key} at {value}", metadata={"version": value}) for key, value in upserts.items()]
        client.upsert(
            COLLECTION, documents, vectors=np.stack([vector_of(key, value) for key, value in upserts.items()])
        )


def stored_state(data_dir: Path) -> State:
    """What the store's file holds, read by SQLite alone."""
    connection = sqlite3.connect(f"file:{data_dir / FILE_NAME}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT key, text FROM items WHERE deleted = 0 AND collection ="
            " (SELECT id FROM collections WHERE name = ?)",
            (COLLECTION,),
        ).fetchall()
    finally:
        connection.close()
    return {key: int(text.rsplit(" ", 1)[1]) for key, text in rows}


def check_round(server: ServerProcess, writers: list[Writer]) -> int:
    """Compare file, list and searches with what the writers know; returns the number of documents.

    Raises AssertionError on the first acknowledged write that is lost or resurrected.
    """
    with server.client() as client:
        listed: State = {}
        token = ""
        while True:
            page = client.list_documents(COLLECTION, page_size=1000, page_token=token)
            listed |= {document.id: int(str(document.metadata["version"])) for document in page.documents}
            token = page.next_page_token
            if not token:
                break
        assert listed == stored_state(server.data_dir), "the index does not agree with the store"
        for writer in writers:
            prefix = f"writer-{writer.number}/"
            mine = {key: value for key, value in listed.items() if key.startswith(prefix)}
            assert mine in (writer.acknowledged, writer.in_flight), f"{prefix}: acknowledged writes lost or resurrected"
            writer.acknowledged, writer.in_flight = mine, None
        _check_search(client, listed)
        return len(listed)


def _check_search(client: Client, listed: State) -> None:
    everything = client.search(COLLECTION, Query(vector=vector_of("any", 0), limit=1000, exact=True))
    assert {hit.document.id for hit in everything.hits} == set(listed), "search finds another set than is stored"
    items = list(listed.items())
    for start in range(0, len(items), 200):
        part = items[start : start + 200]
        queries = [Query(vector=vector_of(key, value), limit=1) for key, value in part]
        for (key, value), result in zip(part, client.batch_search(COLLECTION, queries), strict=True):
            assert result.hits[0].document.id == key, f"{key} at {value} is not its own nearest neighbour"
            assert abs(result.hits[0].score - 1.0) < 1e-5, f"{key}: search serves an older version"


def run_rounds(data_dir: Path, *, rounds: int, seed: int = 1, environment: dict[str, str] | None = None) -> list[int]:
    """`rounds` times: write from four callers, kill -9 at a random moment, restart, check. Returns calls a round."""
    dice = random.Random(seed)
    writers = [Writer(number) for number in range(WRITERS)]
    server = ServerProcess(data_dir, environment=environment)
    calls_by_round = []
    try:
        server.start()
        with server.client() as client:
            client.create_collection(COLLECTION, dimensions=DIMENSIONS)
        for number in range(rounds):
            before = sum(writer.calls for writer in writers)
            threads = [
                threading.Thread(target=writer.run, args=(server.address, seed * 7919 + number * 31 + writer.number))
                for writer in writers
            ]
            for thread in threads:
                thread.start()
            time.sleep(dice.uniform(0.05, 1.5))
            server.kill()
            for thread in threads:
                thread.join()
            server.start()
            documents = check_round(server, writers)
            calls_by_round.append(sum(writer.calls for writer in writers) - before)
            print(f"round {number + 1}/{rounds}: {calls_by_round[-1]} calls, {documents} documents", flush=True)
    finally:
        server.kill()
    return calls_by_round
