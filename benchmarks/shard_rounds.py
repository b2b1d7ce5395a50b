"""Four shard processes into one PostgreSQL, two of them killed and run again: the collection that one process gives.

Two databases: into the first, one process indexes everything without a break; into the second, four shards at once.
When the second holds a third of the passages one shard is killed (-9), at a half another; the others finish, the
killed are run again. Then both databases must hold the same ids, documents, hashes and vectors, bit for bit. At last
each way is repeated over its own unchanged database.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from nearshore.assembly import open_store
from nearshore.settings import load_settings
from nearshore.store.base import Cursor
from tests.postgres import PostgresServer

COLLECTION = "passages"
SHARDS = 4
KILLS = ((1, 1 / 3), (3, 1 / 2))  # which shard, and at what share of all passages
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """What was indexed and how long it took, in seconds."""

    passages: int
    one_process_s: float
    shards_s: float  # with the kills and the runs after them
    killed_at: list[int]  # passages in the database
    embedded_again: int  # by the runs after the kills
    unchanged_one_process_s: float
    unchanged_shards_s: float
    unchanged_share: float  # of one process: unchanged / first
    unchanged_shards_share: float


class IndexProcess:
    """A `nearshore index SOURCE` straight into a database."""

    def __init__(self, url: str, source: Path, shard: str = "0/1") -> None:
        """Start it; shard: as --shard takes it."""
        command = [sys.executable, "-m", "nearshore", "--json", "index", str(source)]
        self._process = subprocess.Popen(
            [*command, "--collection", COLLECTION, "--shard", shard],
            env={**os.environ, "NEARSHORE_STORE__URL": url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        """Kill -9. Raises AssertionError when it had ended already."""
        assert self._process.poll() is None, "the shard had ended before it could be killed"
        self._process.kill()
        self._process.communicate()

    def finish(self) -> dict[str, int]:
        """Wait for its end; returns its figures. Raises AssertionError unless it ended well."""
        told, _ = self._process.communicate()
        assert self._process.returncode == 0, f"nearshore index ended with {self._process.returncode}"
        figures: dict[str, int] = json.loads(told)
        return figures


def run(postgres: PostgresServer, source: Path, passages: int) -> ShardFigures:
    """The whole comparison over a file of so many passages. Raises AssertionError where anything differs."""
    once, shared = postgres.create_database(), postgres.create_database()
    one_process_s, (figures,) = _timed(once, source, 1)
    assert (figures["documents"], figures["embedded"]) == (passages, passages)
    began = time.perf_counter()
    killed_at, embedded_again = _index_with_kills(shared, source, passages)
    shards_s = time.perf_counter() - began
    compare(once, shared, passages)
    unchanged_s, unchanged = _timed(once, source, 1)
    unchanged_shards_s, unchanged_shards = _timed(shared, source, SHARDS)
    for again in (unchanged, unchanged_shards):
        assert sum(each["documents"] for each in again) == passages
        assert sum(each["embedded"] + each["written"] for each in again) == 0, "unchanged passages were written"
    return ShardFigures(
        passages=passages,
        one_process_s=one_process_s,
        shards_s=shards_s,
        killed_at=killed_at,
        embedded_again=embedded_again,
        unchanged_one_process_s=unchanged_s,
        unchanged_shards_s=unchanged_shards_s,
        unchanged_share=unchanged_s / one_process_s,
        unchanged_shards_share=unchanged_shards_s / shards_s,
    )


def compare(first: str, second: str, passages: int) -> None:
    """Raise AssertionError unless two databases hold the same collection of so many passages."""
    left, right = contents(first), contents(second)
    assert len(left) == len(right) == passages, f"{len(left)} and {len(right)} documents, not {passages}"
    different = [key for key in left if left[key] != right.get(key)]
    assert not different, f"{len(different)} documents differ, among them {different[:5]}"


def contents(url: str) -> dict[str, bytes]:
    """A digest of each document with its hash and vector, by id."""
    store = open_store(load_settings(store__url=url), lambda _: None)
    try:
        collection = store.get_collection(COLLECTION)
        found: dict[str, bytes] = {}
        page = store.read_feed(collection.id, Cursor())
        while True:
            for item in page.items:
                assert item.document is not None, "nothing was deleted"
                assert item.vector is not None
                each = item.document
                fields = (each.text, each.title, each.parent_id, sorted(each.metadata.items()), item.content_hash)
                found[item.id] = hashlib.blake2b(repr(fields).encode() + item.vector.tobytes(), digest_size=16).digest()
            if page.next is None:
                return found
            page = store.read_feed(collection.id, Cursor(), page.next)
    finally:
        store.close()


def _timed(url: str, source: Path, shards: int) -> tuple[float, list[dict[str, int]]]:
    began = time.perf_counter()
    running = [IndexProcess(url, source, f"{index}/{shards}") for index in range(shards)]
    figures = [each.finish() for each in running]
    return time.perf_counter() - began, figures


def _index_with_kills(url: str, source: Path, passages: int) -> tuple[list[int], int]:
    """Index by shards; returns how much was there at each kill, and what the runs after them embedded."""
    running = {index: IndexProcess(url, source, f"{index}/{SHARDS}") for index in range(SHARDS)}
    killed_at = []
    for index, share in KILLS:
        while (there := _count(url)) < share * passages:
            time.sleep(_POLL_S)
        running[index].kill()
        killed_at.append(there)
    killed = {index for index, _ in KILLS}
    kept = [running[index].finish() for index in sorted(set(running) - killed)]
    assert all(each["documents"] == each["embedded"] for each in kept)
    again = [IndexProcess(url, source, f"{index}/{SHARDS}") for index in sorted(killed)]
    return killed_at, sum(each.finish()["embedded"] for each in again)


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('items')").fetchone() == (None,):
            return 0
        found = connection.execute("SELECT count(*) FROM items").fetchone()
        return int(found[0]) if found else 0
