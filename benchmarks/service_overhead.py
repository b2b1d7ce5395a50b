"""What the service adds to the bare ONNX session, in pairs: the two take turns, so drift hits both.

    make bench

One caller: the same 8-token text through gRPC and straight through an ONNX session of this process, call by call;
the figure is the median difference. The same for a gRPC server that only runs the session: what it adds is gRPC's own.
Sixteen callers: each sends calls of 64 texts of 5 to 256 tokens through gRPC, client on the same cores; the yardstick
embeds the same texts, tokenized and sorted by length beforehand, on as many threads as there are cores, and nothing
else; the figure is the median ratio of texts/s.
"""

import nearshore.threads  # noqa: F401  # first: it limits the threads of native libraries  # isort: skip

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import bare_grpc, bundles, chosen_texts, embedding_direct, machine
from benchmarks.server_process import ServerProcess
from nearshore.client import Client

CALLERS = 16
TEXTS_A_CALL = 64
CALLS_A_CALLER = 1
WARM_UP_PAIRS = 50


@dataclass(frozen=True, slots=True)
class Latency:
    """One caller, one text of 8 tokens at a time; milliseconds, medians."""

    pairs: int
    direct_ms: float
    served_ms: float
    added_ms: float  # the median of the pairs' differences
    bare_grpc_added_ms: float  # the same of a server that does nothing else


@dataclass(frozen=True, slots=True)
class Throughput:
    """Many callers; texts a second, medians over the pairs."""

    pairs: int
    texts: int  # a side and pair
    tokens: int
    direct_texts_per_s: float
    served_texts_per_s: float
    ratio: float  # the median of the pairs' ratios


def make_texts(count: int, dice: random.Random) -> list[str]:
    """Texts of 5 to 256 tokens, all lengths equally likely."""
    return [" ".join(dice.choices(chosen_texts.WORDS, k=dice.randint(3, 254))) for _ in range(count)]


def measure_latency(
    model: embedding_direct.DirectModel, client: Client, bare: Callable[[], object], *, pairs: int
) -> Latency:
    """Direct and served calls in turn, then direct and bare ones: three at once would empty each other's caches."""
    served_s, direct_s = _in_turns(lambda: client.embed([embedding_direct.QUERY]), model, pairs)
    bare_s, beside_s = _in_turns(bare, model, pairs)
    return Latency(
        pairs,
        1e3 * statistics.median(direct_s),
        1e3 * statistics.median(served_s),
        _added_ms(served_s, direct_s),
        _added_ms(bare_s, beside_s),
    )


def _in_turns(
    call: Callable[[], object], model: embedding_direct.DirectModel, pairs: int
) -> tuple[list[float], list[float]]:
    """Seconds of each call, and of the direct one before it."""
    ids = model.tokenize([embedding_direct.QUERY])
    assert len(ids[0]) == 8, "the query must have 8 tokens"
    call_s, direct_s = [], []
    for _ in range(pairs + WARM_UP_PAIRS):
        began = time.perf_counter()
        model.run(ids)
        between = time.perf_counter()
        call()
        call_s.append(time.perf_counter() - between)
        direct_s.append(between - began)
    return call_s[WARM_UP_PAIRS:], direct_s[WARM_UP_PAIRS:]


def _added_ms(call_s: list[float], direct_s: list[float]) -> float:
    return 1e3 * statistics.median(call - direct for call, direct in zip(call_s, direct_s, strict=True))


def measure_throughput(model: embedding_direct.DirectModel, address: str, *, pairs: int) -> Throughput:
    """Direct and served rounds in turn, the same texts in both."""
    texts = make_texts(CALLERS * CALLS_A_CALLER * TEXTS_A_CALL, random.Random(1))
    ids = model.tokenize(texts)
    cores = len(os.sched_getaffinity(0))
    direct, served = [], []
    for number in range(pairs + 1):
        bare = embedding_direct.throughput(model, ids, threads=cores).texts_per_s
        through = len(texts) / _serve_round(address, texts)
        if number:  # the first pair warms up
            direct.append(bare)
            served.append(through)
    return Throughput(
        pairs,
        len(texts),
        sum(map(len, ids)),
        statistics.median(direct),
        statistics.median(served),
        statistics.median(there / here for here, there in zip(direct, served, strict=True)),
    )


def _serve_round(address: str, texts: list[str]) -> float:
    """Seconds until all callers have all their answers."""
    share = TEXTS_A_CALL * CALLS_A_CALLER
    clients = [Client(address, timeout_s=300.0) for _ in range(CALLERS)]

    def call(caller: int) -> None:
        mine = texts[caller * share : (caller + 1) * share]
        for start in range(0, share, TEXTS_A_CALL):
            answer = clients[caller].embed(mine[start : start + TEXTS_A_CALL])
            assert len(answer.vectors) == TEXTS_A_CALL

    with ThreadPoolExecutor(CALLERS) as callers:
        for client in clients:
            client.wait_ready()
        began = time.perf_counter()
        list(callers.map(call, range(CALLERS)))
        seconds = time.perf_counter() - began
    for client in clients:
        client.close()
    return seconds


def measure(*, latency_pairs: int = 500, throughput_pairs: int = 7) -> tuple[Latency, Throughput]:
    """Start a server on an empty folder and measure both."""
    graph = bundles.served().model_path
    model = embedding_direct.DirectModel(graph)
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "data") as server:
        with server.client() as client, bare_grpc.bare_call(graph) as bare:
            latency = measure_latency(model, client, bare, pairs=latency_pairs)
        return latency, measure_throughput(model, server.address, pairs=throughput_pairs)


def main() -> None:
    """Print the figures and the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-pairs", type=int, default=500)
    parser.add_argument("--throughput-pairs", type=int, default=7)
    arguments = parser.parse_args()
    latency, throughput = measure(latency_pairs=arguments.latency_pairs, throughput_pairs=arguments.throughput_pairs)
    print(
        json.dumps(
            {
                "machine": machine.describe(),
                "precisions": [bundles.served().precision],
                "one_caller": asdict(latency),
                "sixteen_callers": asdict(throughput),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
