"""Break something under load, again and again: nothing acknowledged may be lost, nothing deleted may come back.

Writers own disjoint ids, so each knows the last acknowledged state of its own and at most one call in flight, which
may have happened wholly or not at all. After every round the store (read without the server), the server's list, and
searches must all show one of those two states. Here the server is killed; postgres_rounds breaks more.
"""

import random
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.server_process import ServerProcess
from nearshore.client import NO_RETRIES, Client, Query
from nearshore.errors import NearshoreError
from nearshore.records import F32, Document
from nearshore.store.errors import StoreUnavailableError
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


class Subject(Protocol):
    """What the rounds break and mend."""

    @property
    def server(self) -> ServerProcess:
        """The server that the callers call."""

    def strike(self) -> None:
        """Break it, whatever is going on."""

    def mend(self) -> None:
        """Bring everything back."""

    def stored_state(self) -> State:
        """What the store holds, read without the server."""


@dataclass(frozen=True)
class KilledServer:
    """A server over SQLite that is killed."""

    server: ServerProcess

    def strike(self) -> None:
        """Kill -9."""
        self.server.kill()

    def mend(self) -> None:
        """Start it again."""
        self.server.start()

    def stored_state(self) -> State:
        """Read by SQLite alone."""
        connection = sqlite3.connect(f"file:{self.server.data_dir / FILE_NAME}?mode=ro", uri=True)
        try:
            rows = connection.execute(
                "SELECT key, text FROM items WHERE deleted = 0 AND collection ="
                " (SELECT id FROM collections WHERE name = ?)",
                (COLLECTION,),
            ).fetchall()
        finally:
            connection.close()
        return versions(rows)


def versions(rows: Sequence[tuple[str, str]]) -> State:
    """The state that rows of id and text tell."""
    return {key: int(text.rsplit(" ", 1)[1]) for key, text in rows}


@dataclass(frozen=True)
class Call:
    """One write, which can be sent again."""

    upserts: State
    deletes: Sequence[str]
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def send(self, client: Client) -> None:
        """Send it. Raises what the client does."""
        if self.deletes:
            client.delete(COLLECTION, ids=self.deletes, request_id=self.request_id)
            return
        documents = [
            Document(key, f"{key} at {value}", metadata={"version": value}) for key, value in self.upserts.items()
        ]
        vectors = np.stack([vector_of(key, value) for key, value in self.upserts.items()])
        client.upsert(COLLECTION, documents, vectors=vectors, request_id=self.request_id)


@dataclass
class Writer:
    """One caller with ids of its own. `acknowledged` is what must be there; `in_flight` what may be."""

    number: int
    acknowledged: State = field(default_factory=dict)
    in_flight: State | None = None
    call: Call | None = None  # the one in flight
    calls: int = 0
    version: int = 0

    def run(self, address: str, seed: int) -> None:
        """Write until a call fails."""
        dice = random.Random(seed)
        with Client(address, timeout_s=30.0, retries=NO_RETRIES) as client:
            while True:
                self.call = call = self._choose(dice)
                kept = {key: value for key, value in self.acknowledged.items() if key not in call.deletes}
                self.in_flight = kept | call.upserts
                try:
                    call.send(client)
                except NearshoreError as error:
                    if error.reason == StoreUnavailableError.reason:  # it promises that nothing was written
                        self.in_flight = self.call = None
                    return
                self._settled()

    def repeat(self, client: Client) -> None:
        """Send the call whose outcome is unknown once more; after that it is known."""
        if self.call is not None:
            self.call.send(client)
            self._settled()

    def _settled(self) -> None:
        assert self.in_flight is not None
        self.acknowledged, self.in_flight, self.call = self.in_flight, None, None
        self.calls += 1

    def _choose(self, dice: random.Random) -> Call:
        ids = [f"writer-{self.number}/{n}" for n in dice.sample(range(IDS_EACH), dice.randint(1, 12))]
        if dice.random() < 0.35:
            return Call({}, ids)
        self.version += 1
        return Call(dict.fromkeys(ids, self.version), [])


def check_round(subject: Subject, writers: list[Writer]) -> int:
    """Compare store, list and searches with what the writers know; returns the number of documents.

    Raises AssertionError on the first acknowledged write that is lost or resurrected.
    """
    with subject.server.client() as client:
        # A write of nothing, which the client's reads wait for: a server that lived on may have some catching up to do.
        client.delete(COLLECTION, ids=["nothing"])
        for writer in writers[::2]:
            writer.repeat(client)
        listed: State = {}
        token = ""
        while True:
            page = client.list_documents(COLLECTION, page_size=1000, page_token=token)
            listed |= {document.id: int(str(document.metadata["version"])) for document in page.documents}
            token = page.next_page_token
            if not token:
                break
        assert listed == subject.stored_state(), "the index does not agree with the store"
        for writer in writers:
            prefix = f"writer-{writer.number}/"
            mine = {key: value for key, value in listed.items() if key.startswith(prefix)}
            assert mine in (writer.acknowledged, writer.in_flight), f"{prefix}: acknowledged writes lost or resurrected"
            writer.acknowledged, writer.in_flight, writer.call = mine, None, None
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


def run_rounds(subject: Subject, *, rounds: int, seed: int = 1) -> list[int]:
    """`rounds` times: write from four callers, strike at a random moment, mend, check. Returns calls a round.

    The subject is whole when it comes in, and has no collection of the rounds' name.
    """
    dice = random.Random(seed)
    writers = [Writer(number) for number in range(WRITERS)]
    calls_by_round = []
    with subject.server.client() as client:
        client.create_collection(COLLECTION, dimensions=DIMENSIONS)
    for number in range(rounds):
        before = sum(writer.calls for writer in writers)
        address = subject.server.address
        threads = [
            threading.Thread(target=writer.run, args=(address, seed * 7919 + number * 31 + writer.number))
            for writer in writers
        ]
        for thread in threads:
            thread.start()
        time.sleep(dice.uniform(0.05, 1.5))
        try:
            subject.strike()
        except BaseException:
            subject.server.kill()  # or the writers would never end
            raise
        for thread in threads:
            thread.join()
        subject.mend()
        documents = check_round(subject, writers)
        calls_by_round.append(sum(writer.calls for writer in writers) - before)
        print(f"round {number + 1}/{rounds}: {calls_by_round[-1]} calls, {documents} documents", flush=True)
    return calls_by_round


def run_on_sqlite(data_dir: Path, *, rounds: int) -> list[int]:
    """The rounds with a server on the data folder `data_dir`, which is killed. Returns calls a round."""
    with ServerProcess(data_dir) as server:
        return run_rounds(KilledServer(server), rounds=rounds)
