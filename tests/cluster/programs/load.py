"""Steady load through the shipped client until SIGTERM; then checks every write and prints a report as JSON.

python load.py TARGET COLLECTION CALLS_PER_S: a third each of Embed, Search and Upsert, by clients that stay connected.
"""

import contextlib
import itertools
import json
import signal
import sys
import threading
import time
from collections import Counter, defaultdict

from nearshore.client import Client, Document, Query
from nearshore.errors import AlreadyExistsError, NearshoreError

CLIENTS, WORKERS_PER_CLIENT = 4, 4
IDS_PER_WORKER = 25  # each is written again and again: an old version that comes back would be seen
WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty", "knoll", "lagoon")
METHODS = ("embed", "search", "upsert")


class Record:
    """What happened. Written by all workers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.failures: list[dict[str, object]] = []
        self.took_s: dict[str, list[float]] = defaultdict(list)
        self.acknowledged: dict[str, int] = {}  # the newest version of each id that was acknowledged

    def done(self, method: str, started: float, error: Exception | None) -> None:
        with self.lock:
            self.calls[method] += 1
            self.took_s[method].append(time.monotonic() - started)
            if error is not None:
                reason = error.reason if isinstance(error, NearshoreError) else type(error).__name__
                notes = getattr(error, "__notes__", [])
                failure = {"at": time.strftime("%H:%M:%S"), "method": method, "reason": reason, "error": str(error)}
                self.failures.append({**failure, "notes": notes})
                print(json.dumps({"failure": self.failures[-1]}), flush=True)


def work(number: int, client: Client, collection: str, interval_s: float, record: Record, end: threading.Event) -> None:
    """One call after another, of each kind in turn, each due at its time."""
    due = time.monotonic() + interval_s * number / (CLIENTS * WORKERS_PER_CLIENT)
    for turn in itertools.count():
        if end.wait(max(0.0, due - time.monotonic())):
            return
        due = max(due + interval_s, time.monotonic() - 1.0)
        method = METHODS[(turn + number) % len(METHODS)]
        started, error = time.monotonic(), None
        try:
            call(method, client, collection, number, turn, record)
        except Exception as failed:  # whatever it is, it is counted
            error = failed
        record.done(method, started, error)


def call(method: str, client: Client, collection: str, number: int, turn: int, record: Record) -> None:
    text = " ".join(WORDS[(turn * step + number) % len(WORDS)] for step in range(1, 9))
    if method == "embed":
        client.embed([text])
    elif method == "search":
        client.search(collection, Query(text=text, limit=5))
    else:
        name = f"note-{number}-{turn // len(METHODS) % IDS_PER_WORKER}"
        client.upsert(collection, [Document(name, f"{text} {turn}", metadata={"turn": turn})])
        with record.lock:
            record.acknowledged[name] = turn


def lost_writes(client: Client, collection: str, record: Record) -> list[str]:
    """Acknowledged writes that are not there, or are an older version."""
    lost: list[str] = []
    names = sorted(record.acknowledged)
    for first in range(0, len(names), 100):
        batch = names[first : first + 100]
        found = {each.id: int(str(each.metadata["turn"])) for each in client.get(collection, batch).documents}
        stale = [name for name in batch if found.get(name, -1) < record.acknowledged[name]]
        lost += [f"{name}: wrote {record.acknowledged[name]}, found {found.get(name)}" for name in stale]
    return lost


def main(target: str, collection: str, calls_per_s: float) -> None:
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    record = Record()
    clients = [Client(target) for _ in range(CLIENTS)]
    clients[0].wait_ready()
    with contextlib.suppress(AlreadyExistsError):
        clients[0].create_collection(collection, model=clients[0].tokenize([""]).model)
    workers = CLIENTS * WORKERS_PER_CLIENT
    interval_s = workers / calls_per_s
    started = time.monotonic()
    threads = [
        threading.Thread(target=work, args=(number, clients[number % CLIENTS], collection, interval_s, record, end))
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    end.wait()
    for thread in threads:
        thread.join()
    elapsed_s = time.monotonic() - started
    with Client(target) as client:  # of no session: what it finds is what everybody finds
        time.sleep(2.0)
        lost = lost_writes(client, collection, record)
    slowest = {method: round(max(took), 2) for method, took in record.took_s.items()}
    middle = {method: round(sorted(took)[len(took) // 2] * 1_000, 1) for method, took in record.took_s.items()}
    report = {
        "calls": dict(record.calls),
        "total": sum(record.calls.values()),
        "failed": len(record.failures),
        "failures": record.failures[:20],
        "seconds": round(elapsed_s, 1),
        "calls_per_s": round(sum(record.calls.values()) / elapsed_s, 1),
        "written_ids": len(record.acknowledged),
        "lost": lost,
        "slowest_s": slowest,
        "median_ms": middle,
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
