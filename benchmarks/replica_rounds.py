"""Three replicas on one PostgreSQL: is what was written found on all, how late, and what while PostgreSQL is away?

Checkers write a document and look for it at once; their client carries the token of the write and goes to the replicas
in turn, so a check never asks the replica that it wrote to. A prober writes and looks without a token. Then PostgreSQL
is stopped under searches and writes, and started again. Vectors are the callers' own: embedding is not measured here.
"""

import contextlib
import itertools
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kill_rounds import DIMENSIONS, vector_of
from benchmarks.server_process import ServerProcess
from nearshore.client import NO_RETRIES, Client, Query
from nearshore.errors import NearshoreError
from nearshore.records import Document
from tests.postgres import PostgresServer
from tests.tiny_bert import make_bundle

COLLECTION = "replicas"
REPLICAS = 3
CHECKERS = 6
IDS_EACH = 100  # each is written again and again
SEARCHERS = 4
BASE_DOCUMENTS = 2_000  # that are searched besides
PROBE_PAUSE_S = 0.1
WRITE_PAUSE_S = 0.05  # of each writer while PostgreSQL is away
GIVE_UP_S = 60.0


@dataclass(frozen=True)
class Checks:
    """What the checkers and the prober saw."""

    checks: int
    missed: int
    seconds: float
    check_ms_median: float  # a write and a search with its token
    searches_beside: int
    lag_ms_median: float  # from an acknowledged write until another replica shows it to one without a token
    lag_ms_p99: float
    probes: int


@dataclass(frozen=True)
class Outage:
    """What happened while PostgreSQL was away."""

    away_s: float
    searches: int
    failed_searches: int
    refused_writes: dict[str, int]  # by reason
    refusal_ms_median: float
    refusal_ms_max: float
    caught_up_s: float  # from PostgreSQL's return until each replica writes, and shows what the others wrote


@dataclass
class Load:
    """Searches over all replicas until the end of the block; none is repeated."""

    target: str
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self, pause_s: float = 0.0) -> Iterator[None]:
        """SEARCHERS threads, each of which waits pause_s between two searches."""
        with ThreadPoolExecutor(SEARCHERS) as threads:
            loops = [threads.submit(self._search, number, pause_s) for number in range(SEARCHERS)]
            try:
                yield
            finally:
                self._ended.set()
            for loop in loops:
                self.answered += loop.result()

    def _search(self, seed: int, pause_s: float) -> int:
        answered = 0
        with Client(self.target, retries=NO_RETRIES, read_own_writes=False) as client:
            for number in itertools.count(seed):
                if self._ended.wait(pause_s):
                    return answered
                try:
                    client.search(COLLECTION, Query(vector=vector_of(base_id(number), 0), limit=5))
                    answered += 1
                except NearshoreError as error:
                    self.failures.append(str(error))
        return answered


class Cluster:
    """PostgreSQL and its replicas."""

    def __init__(self, postgres: PostgresServer, servers: Sequence[ServerProcess]) -> None:
        """Both running."""
        self.postgres = postgres
        self.servers = servers
        self.target = "ipv4:" + ",".join(server.address for server in servers)

    def each(self) -> list[Client]:
        """A client of each replica, which carries no tokens and repeats nothing; the caller closes them."""
        return [Client(server.address, retries=NO_RETRIES, read_own_writes=False) for server in self.servers]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A PostgreSQL of its own and REPLICAS servers with a collection of BASE_DOCUMENTS. folder: an empty one."""
    make_bundle(folder / "models")
    with PostgresServer() as postgres, contextlib.ExitStack() as opened:
        environment = {
            "NEARSHORE_STORE__URL": postgres.create_database(),
            "NEARSHORE_MODEL_DIR": str(folder / "models"),
            "NEARSHORE_EMBEDDING__MODEL": "tiny",
        }
        servers = [ServerProcess(folder / f"replica-{n}", environment=environment) for n in range(REPLICAS)]
        made = Cluster(postgres, [opened.enter_context(server) for server in servers])
        with Client(made.target) as client:
            client.create_collection(COLLECTION, dimensions=DIMENSIONS)
            for start in range(0, BASE_DOCUMENTS, 500):
                write(client, [(base_id(n), 0) for n in range(start, start + 500)])
            for _ in made.servers:  # calls go to them in turn, and each waits for what was written
                assert client.count(COLLECTION) == BASE_DOCUMENTS
        yield made


def base_id(number: int) -> str:
    """The id of a document that stays as it is."""
    return f"base/{number % BASE_DOCUMENTS}"


def write(client: Client, versions: Sequence[tuple[str, int]]) -> None:
    """Upsert documents, given by id and version. Raises what the client does."""
    documents = [Document(key, f"{key} at {version}", metadata={"version": version}) for key, version in versions]
    client.upsert(COLLECTION, documents, vectors=np.stack([vector_of(*each) for each in versions]))


def check_reading(made: Cluster, *, checks: int) -> Checks:
    """`checks` times: write, then search with the token, by CHECKERS callers at once; beside it searches and probes."""
    load, probing, lags_s = Load(made.target), threading.Event(), list[float]()
    prober = threading.Thread(target=_probe, args=(made, probing, lags_s))
    began = time.perf_counter()
    with load.running(pause_s=0.01), ThreadPoolExecutor(CHECKERS) as threads:
        prober.start()
        share = [checks // CHECKERS + (number < checks % CHECKERS) for number in range(CHECKERS)]
        seen = list(threads.map(lambda number: _check(made.target, number, share[number]), range(CHECKERS)))
        seconds = time.perf_counter() - began
        probing.set()
        prober.join()
    assert not load.failures, load.failures[0]
    took_s = [each for one in seen for each in one[1]]
    return Checks(
        checks=len(took_s),
        missed=sum(one[0] for one in seen),
        seconds=round(seconds, 1),
        check_ms_median=_ms(statistics.median(took_s)),
        searches_beside=load.answered,
        lag_ms_median=_ms(statistics.median(lags_s)),
        lag_ms_p99=_ms(float(np.quantile(lags_s, 0.99))),
        probes=len(lags_s),
    )


def _check(target: str, number: int, checks: int) -> tuple[int, list[float]]:
    """Returns how many writes were not found, and how long each check took, seconds."""
    missed, took_s = 0, []
    dice = random.Random(number)
    with Client(target, timeout_s=GIVE_UP_S) as client:
        for version in range(1, checks + 1):
            key = f"checker-{number}/{dice.randrange(IDS_EACH)}"
            began = time.perf_counter()
            if dice.random() < 0.1:
                client.delete(COLLECTION, ids=[key])
                missed += bool(client.get(COLLECTION, [key]).documents)
            else:
                write(client, [(key, version)])
                hits = client.search(COLLECTION, Query(vector=vector_of(key, version), limit=1)).hits
                found = hits and hits[0].document.id == key and hits[0].document.metadata["version"] == version
                missed += not found
            took_s.append(time.perf_counter() - began)
    return missed, took_s


def _probe(made: Cluster, ended: threading.Event, lags_s: list[float]) -> None:
    """Write to one replica, look at the next without a token, until `ended`."""
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(client) for client in made.each()]
        for version in itertools.count(1):
            if ended.wait(PROBE_PAUSE_S) and version > 1:
                return
            write(clients[version % REPLICAS], [("probe", version)])
            written = time.perf_counter()
            _until(_shows, clients[(version + 1) % REPLICAS], "probe", version)
            lags_s.append(time.perf_counter() - written)


def _shows(client: Client, key: str, version: int) -> bool:
    found = client.get(COLLECTION, [key]).documents
    return bool(found) and found[0].metadata["version"] == version


def _until(condition: Callable[..., bool], *arguments: object) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not condition(*arguments):
        assert time.monotonic() < give_up, "a replica does not show what was written"


def check_outage(made: Cluster, *, away_s: float) -> Outage:
    """Stop PostgreSQL at once for `away_s` seconds under searches and writes, and start it again."""
    load, mending = Load(made.target), threading.Event()
    with load.running(pause_s=0.005), ThreadPoolExecutor(REPLICAS) as threads:
        writers = [threads.submit(_write_until, made, number, mending) for number in range(REPLICAS)]
        time.sleep(1.0)
        made.postgres.stop("immediate")
        stopped = time.perf_counter()
        time.sleep(away_s)
        mending.set()
        refusals = [refusal for writer in writers for refusal in writer.result()]
        made.postgres.start()
        returned = time.perf_counter()
        _catch_up(made)
        caught_up_s = time.perf_counter() - returned
    reasons = [reason for reason, _ in refusals]
    return Outage(
        away_s=round(returned - stopped, 1),
        searches=load.answered,
        failed_searches=len(load.failures),
        refused_writes={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        refusal_ms_median=_ms(statistics.median(took_s for _, took_s in refusals)),
        refusal_ms_max=_ms(max(took_s for _, took_s in refusals)),
        caught_up_s=round(caught_up_s, 2),
    )


def _write_until(made: Cluster, number: int, ended: threading.Event) -> list[tuple[str, float]]:
    """Write to one replica; returns the reason of each refusal, and how long it took, seconds."""
    refusals = []
    with made.each()[number] as client:
        for version in itertools.count(1):
            began = time.perf_counter()
            try:
                write(client, [(f"writer/{number}", version)])
            except NearshoreError as error:
                refusals.append((error.reason, time.perf_counter() - began))
            if ended.wait(WRITE_PAUSE_S):
                return refusals
    return refusals


def _catch_up(made: Cluster) -> None:
    """Until each replica has taken a write, and each shows the writes of all without a token."""
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(client) for client in made.each()]
        for number, client in enumerate(clients):
            _until(_written, client, f"after/{number}")
        for client in clients:
            for number in range(REPLICAS):
                _until(_shows, client, f"after/{number}", 1)


def _written(client: Client, key: str) -> bool:
    try:
        write(client, [(key, 1)])
    except NearshoreError:
        time.sleep(0.02)
        return False
    return True


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)


def prove(folder: Path, *, checks: int, away_s: float) -> dict[str, Any]:
    """Both, with figures for docs/results. folder: an empty one."""
    with cluster(folder) as made:
        reading = check_reading(made, checks=checks)
        print(reading, flush=True)
        return {"replicas": REPLICAS, "reading": asdict(reading), "outage": asdict(check_outage(made, away_s=away_s))}
