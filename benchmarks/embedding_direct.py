"""What ONNX Runtime does when called directly, without the service: the yardstick for nearshore's own overhead.

Only onnxruntime, tokenizers and NumPy take part. Texts are tokenized beforehand and sorted by length, which a server
can do neither of, so the figures are an upper bound.

    PYTHONPATH=server python benchmarks/embedding_direct.py BUNDLE_FOLDER/model.onnx TEXTS.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers

import nearshore  # noqa: F401  # first: it limits the threads of native libraries

QUERY = "find all files of a user"  # 8 tokens with [CLS] and [SEP]


@dataclass(frozen=True)
class Throughput:
    """How fast a set of texts was embedded."""

    texts_per_s: float
    tokens_per_s: float


class DirectModel:
    """An ONNX session and a tokenizer as anyone would set them up for CPU inference."""

    def __init__(self, graph: Path, *, max_tokens: int = 256) -> None:
        """graph: model.onnx or model.int8.onnx of a bundle, with its tokenizer.json beside it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(graph.with_name("tokenizer.json")))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut at max_tokens."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def run(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """One call of the session and the mean of the tokens: B texts of T tokens to (B, dimensions)."""
        ids = np.array(texts, np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        hidden: npt.NDArray[np.float32] = self._session.run(["sequence_output"], feeds)[0]
        return np.asarray(hidden.mean(axis=1))


def single_text_s(model: DirectModel, text: str = QUERY, *, rounds: int = 200) -> list[float]:
    """Seconds of each of `rounds` calls with one text, after ten to warm up."""
    texts = model.tokenize([text])
    for _ in range(10):
        model.run(texts)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        model.run(texts)
        seconds.append(time.perf_counter() - start)
    return seconds


def throughput(
    model: DirectModel, texts: Sequence[Sequence[int]], *, threads: int, max_run_tokens: int = 256
) -> Throughput:
    """Embed token ids on so many threads, each taking the next run of equal length; longest first, to end together."""
    runs: SimpleQueue[list[Sequence[int]]] = SimpleQueue()
    for run in runs_of(texts, max_run_tokens):
        runs.put(run)

    def work() -> None:
        while True:
            try:
                model.run(runs.get_nowait())
            except Empty:
                return

    workers = [threading.Thread(target=work) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    return Throughput(len(texts) / seconds, sum(map(len, texts)) / seconds)


def runs_of(texts: Sequence[Sequence[int]], max_run_tokens: int) -> Iterator[list[Sequence[int]]]:
    """Runs of texts of one length, as the scheduler makes them when all texts wait; the longest first."""
    for length, same in itertools.groupby(sorted(texts, key=len, reverse=True), key=len):
        group, size = list(same), max(1, max_run_tokens // length)
        yield from (group[start : start + size] for start in range(0, len(group), size))


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path, help="model.onnx or model.int8.onnx of a bundle")
    parser.add_argument("texts", type=Path, help="JSONL with a field text")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--max-run-tokens", type=int, nargs="+", default=[1, 256, 512, 1024])
    arguments = parser.parse_args()
    model = DirectModel(arguments.graph)
    with arguments.texts.open(encoding="utf-8") as lines:
        texts = model.tokenize([json.loads(line)["text"] for line in lines])
    print(json.dumps({"single_text_ms_p50": 1e3 * statistics.median(single_text_s(model))}))
    for threads, max_run_tokens in itertools.product(arguments.threads, arguments.max_run_tokens):
        result = throughput(model, texts, threads=threads, max_run_tokens=max_run_tokens)
        print(json.dumps({"threads": threads, "max_run_tokens": max_run_tokens, **vars(result)}))


if __name__ == "__main__":
    main()
