"""How long a single short text takes: beside baseline a, and at a server that a bulk load keeps busy.

The load, `python -m benchmarks.embedding_latency ADDRESS`, is a process of its own: documents sent in large upserts, of
which several always wait.
"""

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import bundles, chosen_texts, embedding_baselines
from benchmarks.embedding_direct import QUERY
from benchmarks.server_process import ServerProcess
from nearshore.bundle import Bundle, Precision
from nearshore.client import Client, Document

ROUNDS = 3
SINGLES = 500  # a phase: the fifth slowest is its p99
BLOCKS, CALLS_A_BLOCK = 10, 30
COLLECTION = "load"
LOADING_CALLERS, DOCUMENTS_A_CALL = 3, 256


@dataclass(frozen=True, slots=True)
class Single:
    """One caller, one text of 8 tokens, in process; milliseconds, medians."""

    engine_ms: float
    baseline_a_ms: float  # of the text alone, nothing to pad it to
    engine_over_baseline_a: float  # the median of the blocks' ratios


@dataclass(frozen=True, slots=True)
class UnderLoad:
    """One caller, one text of 8 tokens at a time through gRPC; milliseconds, medians of the rounds."""

    idle_p50_ms: float
    idle_p99_ms: float
    loaded_p50_ms: float
    loaded_p99_ms: float
    loaded_over_idle_p99: float  # the median of the rounds' ratios


def measure_single(bundle: Bundle, cores: int) -> Single:
    """The int8 engine and baseline a, block by block in turns: threads of ONNX Runtime spin for a while after a run."""
    graph = bundle.at(Precision.FP32).model_path
    baseline = embedding_baselines.Baseline(graph, bundle.tokenizer_path, threads=cores)
    engine_ms, baseline_ms = [], []
    with bundles.open_engine(Precision.INT8) as engine:
        for _ in range(BLOCKS):
            engine_ms.append(statistics.median(_times_ms(lambda: engine.embed([QUERY]), CALLS_A_BLOCK)))
            baseline_ms.append(statistics.median(_times_ms(lambda: baseline.embed([QUERY], sort=False), CALLS_A_BLOCK)))
    ratios = [ours / theirs for ours, theirs in zip(engine_ms, baseline_ms, strict=True)]
    return Single(statistics.median(engine_ms), statistics.median(baseline_ms), statistics.median(ratios))


def measure_under_load(bundle: Bundle, *, rounds: int = ROUNDS, singles: int = SINGLES) -> UnderLoad:
    """A server in int8, idle and loaded in turns."""
    idle, loaded = [], []
    environment = {"NEARSHORE_EMBEDDING__PRECISION": Precision.INT8.value}
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder) / "data", environment=environment) as server,
        server.client() as client,
    ):
        client.create_collection(COLLECTION, model=bundle.manifest.name)
        for _ in range(rounds):
            idle.append(_times_ms(lambda: client.embed([QUERY]), singles))
            with _load(server.address):
                loaded.append(_times_ms(lambda: client.embed([QUERY]), singles))
            while client.get_collection(COLLECTION).status.building:
                time.sleep(0.05)
    ratios = [_p99(after) / _p99(before) for before, after in zip(idle, loaded, strict=True)]
    return UnderLoad(
        statistics.median(map(_p50, idle)),
        statistics.median(map(_p99, idle)),
        statistics.median(map(_p50, loaded)),
        statistics.median(map(_p99, loaded)),
        statistics.median(ratios),
    )


def _times_ms(call: Callable[[], object], count: int) -> list[float]:
    """Of each of so many calls, after a tenth of them to warm up."""
    times = []
    for _ in range(count + count // 10):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return times[count // 10 :]


def _p50(times: list[float]) -> float:
    return statistics.median(times)


def _p99(times: list[float]) -> float:
    return sorted(times)[round(0.99 * (len(times) - 1))]


@contextlib.contextmanager
def _load(address: str) -> Iterator[None]:
    """A loading process, from the answer to its first upsert on."""
    command = [sys.executable, "-m", "benchmarks.embedding_latency", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the load did not start; see its error above")
        try:
            yield
            if process.poll() is not None:
                raise RuntimeError("the load ended too early; see its error above")
        finally:
            process.kill()


def _upsert_for_ever(address: str, caller: int) -> None:
    texts = itertools.cycle(chosen_texts.mixed())
    with Client(address, timeout_s=600.0) as client:
        for number in itertools.count():
            chosen = itertools.islice(texts, DOCUMENTS_A_CALL)
            documents = [Document(f"{os.getpid()}-{caller}-{number}-{each}", text) for each, text in enumerate(chosen)]
            client.upsert(COLLECTION, documents)
            if number == 0:
                print("loading", flush=True)


def main() -> None:
    """Load the server at an address until killed."""
    with ThreadPoolExecutor(LOADING_CALLERS) as callers:
        list(callers.map(_upsert_for_ever, itertools.repeat(sys.argv[1]), range(LOADING_CALLERS)))


if __name__ == "__main__":
    main()
