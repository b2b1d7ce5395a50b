"""Four processes write the same 60 ids while writes roll back, backends die and old transactions stay open.

Each process remembers which change it made at which position. The last position wins, so what the store has to hold
is known without asking it; a replica that follows the store meanwhile must end with exactly that, and whoever holds a
write token must never wait for it longer than a second.

    python -m benchmarks.shared_keys URL COLLECTION_ID NUMBER SECONDS      is one of the writers
"""

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psycopg

from nearshore import logs
from nearshore.errors import NearshoreError, UnavailableError
from nearshore.records import Change, CollectionSpec, Delete, Document, Upsert, WriteToken
from nearshore.replica import Replica, ReplicaOptions, Replicas
from nearshore.store.base import Cursor, Store
from nearshore.store.postgres.store import PostgresStore
from nearshore.store.writer import Limits

WRITERS = 4
KEYS = 60
DIMENSIONS = 8
APPLICATION = "shared-keys-writer"
_ROOT = Path(__file__).parents[1]
_WAIT_S = 60.0  # only a bug reaches it
_T = TypeVar("_T")
Texts = dict[str, str]  # id -> text of the live documents


@dataclass(frozen=True)
class Figures:
    """What a run did."""

    writes: int
    rollbacks: int
    ended_backends: int
    repeated_writes: int  # sent again because the first attempt failed or its outcome was unknown
    documents: int
    longest_token_wait_s: float
    median_token_wait_s: float


@dataclass
class _Seen:
    """What the writers told, and how long their tokens waited. Guarded by its lock."""

    changes: dict[int, Texts] = field(default_factory=dict)  # position -> id -> text, empty for a delete
    waits_s: list[float] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    repeated: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wrote(self, line: dict[str, Any]) -> None:
        """Take in one acknowledged write."""
        with self.lock:
            assert line["position"] not in self.changes, f"two writes of position {line['position']}"
            self.changes[line["position"]] = line["changes"]
            self.repeated += line["repeated"]

    def waited(self, since: float, future: Any) -> None:
        """Take in how a token's waiting ended."""
        with self.lock:
            self.waits_s.append(time.monotonic() - since)
            if future.exception() is not None:
                self.failures.append(future.exception())

    def expected(self) -> Texts:
        """What must be there in the end."""
        state: Texts = {}
        for _, changes in sorted(self.changes.items()):
            state |= changes
        return {key: text for key, text in state.items() if text}


def open_store(url: str) -> PostgresStore:
    """A store as a server opens it."""
    return PostgresStore.open(
        url,
        max_connections=4,
        connect_timeout_s=5.0,
        statement_timeout_s=60.0,
        limits=Limits(max_transaction_rows=1_000, max_transaction_bytes=4 << 20, max_queued_bytes=64 << 20),
    )


def run(url: str, folder: Path, *, seconds: float, seed: int = 1) -> Figures:
    """Write for so long, then compare store, replica and what the writers know; url names an empty database.

    folder: for the replica's files. PostgreSQL must allow prepared transactions. Raises AssertionError.
    """
    store, deaths = open_store(url), list[BaseException]()
    replicas = Replicas.open(store, folder, ReplicaOptions(), deaths.append)
    try:
        replicas.start()
        replica = replicas.create(CollectionSpec("shared", DIMENSIONS))
        seen = _Seen()
        with _old_transactions(url), _saboteur(url, replica.collection.id, seed) as sabotage:
            _write(url, replica, seen, seconds)
        _compare(url, store, replica, seen)
        assert not deaths, deaths
        waits_s = sorted(seen.waits_s)
        return Figures(
            len(seen.changes),
            sabotage.rollbacks,
            sabotage.ended_backends,
            seen.repeated,
            len(seen.expected()),
            round(waits_s[-1], 3),
            round(waits_s[len(waits_s) // 2], 4),
        )
    finally:
        replicas.close()
        store.close()


def _write(url: str, replica: Replica, seen: _Seen, seconds: float) -> None:
    """Run the writers, and let somebody wait for each of their tokens."""
    command = [sys.executable, "-m", "benchmarks.shared_keys", _named(url), str(replica.collection.id)]
    writers = [
        subprocess.Popen([*command, str(number), str(seconds)], cwd=_ROOT, stdout=subprocess.PIPE, text=True)
        for number in range(WRITERS)
    ]
    with ThreadPoolExecutor(WRITERS) as executor:
        for listening in [executor.submit(_listen, writer, replica, seen) for writer in writers]:
            listening.result()
    codes = [writer.wait() for writer in writers]
    assert not any(codes), f"the writers ended with {codes}"


def _listen(writer: "subprocess.Popen[str]", replica: Replica, seen: _Seen) -> None:
    assert writer.stdout is not None
    with writer.stdout:
        for text in writer.stdout:
            line = json.loads(text)
            seen.wrote(line)
            token = WriteToken.decode(line["token"])
            replica.applied(token).add_done_callback(partial(seen.waited, time.monotonic()))


def _compare(url: str, store: Store, replica: Replica, seen: _Seen) -> None:
    """All four accounts agree: what the writers did, the tables, a walk over the feed, and the replica's view."""
    expected = seen.expected()
    head = store.heads()[replica.collection.id]
    replica.applied(WriteToken(replica.collection.id, head.position, head.tag)).result(_WAIT_S)
    assert not seen.failures, seen.failures[:3]
    assert len(seen.waits_s) == len(seen.changes), "a token still waits"
    view = replica.view()
    shown = view.documents(np.flatnonzero(view.index.alive))
    assert len(shown) == len({document.id for document in shown}), "the view holds a document twice"
    assert {document.id: document.text for document in shown} == expected, "the replica holds another state"
    page = store.read_feed(replica.collection.id, Cursor())
    assert page.next is None
    fed = {item.id: item.document.text for item in page.items if item.document is not None}
    assert fed == expected, "the feed tells another state"
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT key, text FROM items WHERE collection = %s AND NOT deleted", (replica.collection.id,)
        ).fetchall()
    assert dict(rows) == expected, "the store holds another state"
    assert set(seen.changes) <= set(range(1, head.position + 1))


@contextlib.contextmanager
def _old_transactions(url: str) -> Iterator[None]:
    """Hold a write open in another database, and leave a prepared transaction without an owner in this one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE elsewhere")
        elsewhere = psycopg.conninfo.make_conninfo(url, dbname="elsewhere")
        with psycopg.connect(elsewhere) as held:
            held.execute("CREATE TABLE held (number int)")
            held.execute("INSERT INTO held VALUES (1)")
            connection.execute("CREATE TABLE orphan (number int)")
            with connection.transaction():
                connection.execute("INSERT INTO orphan VALUES (1)")
                connection.execute("PREPARE TRANSACTION 'orphan'")
            yield
            held.rollback()
        connection.execute("ROLLBACK PREPARED 'orphan'")


class _Sabotage:
    """Takes positions and writes rows that it rolls back; ends writers' backends wherever they are."""

    def __init__(self, url: str, collection_id: int, seed: int) -> None:
        self.rollbacks = 0
        self.ended_backends = 0
        self._url = url
        self._collection_id = collection_id
        self._dice = random.Random(seed)
        self._stop = threading.Event()

    def run(self) -> None:
        """Until it is stopped."""
        with psycopg.connect(self._url) as connection:
            while not self._stop.wait(self._dice.uniform(0.0, 0.1)):
                collection = {"id": self._collection_id}
                connection.execute("SELECT 1 FROM collections WHERE id = %(id)s FOR NO KEY UPDATE", collection)
                connection.execute(
                    "WITH advanced AS (INSERT INTO commits"
                    " SELECT %(id)s, coalesce(max(pos), 0) + 1, gen_random_uuid(), now()"
                    " FROM commits WHERE collection = %(id)s RETURNING pos)"
                    " UPDATE items SET pos = advanced.pos, deleted = false, text = 'rolled back' FROM advanced"
                    " WHERE collection = %(id)s",
                    collection,
                )
                connection.rollback()
                self.rollbacks += 1
                if self.rollbacks % 10 == 0:
                    self._end_a_writer(connection)

    def _end_a_writer(self, connection: "psycopg.Connection[Any]") -> None:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            " WHERE application_name = %s ORDER BY random() LIMIT 1) AS chosen",
            (APPLICATION,),
        ).fetchall()
        connection.rollback()
        self.ended_backends += len(ended)

    def stop(self) -> None:
        """End run()."""
        self._stop.set()


@contextlib.contextmanager
def _saboteur(url: str, collection_id: int, seed: int) -> Iterator[_Sabotage]:
    sabotage = _Sabotage(url, collection_id, seed)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(sabotage.run)
        try:
            yield sabotage
        finally:
            sabotage.stop()
        running.result()


def _named(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}application_name={APPLICATION}"


def _insistently(attempt: Callable[[], _T]) -> tuple[_T, int]:
    """The result, and how often it took another attempt: connections are ended at any moment, at the start too."""
    repeated, give_up_at = 0, time.monotonic() + _WAIT_S
    while True:
        try:
            return attempt(), repeated
        except UnavailableError:
            if time.monotonic() > give_up_at:
                raise
            repeated += 1
            time.sleep(0.01)


def write(url: str, collection_id: int, number: int, seconds: float) -> None:
    """One writer: a line of JSON on standard output for each acknowledged write."""
    dice = random.Random(number)
    store, _ = _insistently(partial(open_store, url))
    count, stop_at = 0, time.monotonic() + seconds
    while time.monotonic() < stop_at:
        count += 1
        ids = [f"id {n}" for n in dice.sample(range(KEYS), dice.randint(1, 8))]
        deletes = dice.random() < 0.35
        texts = dict.fromkeys(ids, "" if deletes else f"{number}.{count}")
        token, repeated = _acknowledged(store, collection_id, texts, f"{number}.{count}")
        line = {"position": token.position, "token": token.encode(), "changes": texts, "repeated": repeated}
        print(json.dumps(line), flush=True)
    store.close()


def _acknowledged(store: Store, collection_id: int, texts: Texts, request_id: str) -> tuple[WriteToken, int]:
    """Write until it is acknowledged, as a client does. Returns the token, and how often it was sent again."""
    changes: list[Change] = [
        Upsert(Document(key, text), np.ones(DIMENSIONS, np.float32), b"") if text else Delete(key)
        for key, text in texts.items()
    ]
    return _insistently(lambda: store.write(collection_id, changes, request_id, b"").result(_WAIT_S).commit.token)


if __name__ == "__main__":
    logs.configure("error", "json")  # to standard error; standard output is for what was acknowledged
    try:
        write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    except NearshoreError as error:
        sys.exit(f"{error.reason}: {error}")
