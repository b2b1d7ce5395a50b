"""What a script of onnxruntime and tokenizers alone does with the same weights: the engine is compared with these.

- a: float32, 32 texts a run in the order of arrival, padded to the longest of them
- b: the same, the texts sorted by their tokens before
- c: as b, in the int8 that onnxruntime's own dynamic quantizer makes of the float32 graph

    python -m benchmarks.embedding_baselines a|b|c --graph model.onnx --tokenizer tokenizer.json --cores 2 < texts.json

It imports nothing of nearshore, which would limit the threads of the tokenizer.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic

RUN_TEXTS = 32
MAX_TOKENS = 256
WARM_UP_TEXTS = 64
NAMES = ("a", "b", "c")


def quantize(graph: Path, into: Path) -> None:
    """Write the graph of baseline c: all products with weights in 8 bits, scales taken from each run's activations."""
    # The quantizer's inference of types knows no operator of ONNX Runtime's own.
    quantize_dynamic(graph, into, extra_options={"DefaultTensorType": TensorProto.FLOAT})


class Baseline:
    """A graph, a tokenizer, and as many threads a run as there are cores."""

    def __init__(self, graph: Path, tokenizer: Path, *, threads: int) -> None:
        """threads: of one run."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str], *, sort: bool) -> npt.NDArray[np.float32]:
        """Normalized means, (texts, dimensions), in the order of the texts; sort: run them by length."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        order = np.argsort([len(ids) for ids in tokens], kind="stable") if sort else np.arange(len(tokens))
        runs = [order[start : start + RUN_TEXTS] for start in range(0, len(order), RUN_TEXTS)]
        vectors = np.concatenate([self._run([tokens[index] for index in run]) for run in runs])
        back: npt.NDArray[np.float32] = vectors[np.argsort(order)]
        return back

    def _run(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(["sequence_output"], feeds)[0]
        weights = mask[:, :, None].astype(np.float32)
        means = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        unit: npt.NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit


def main() -> None:
    """Print the seconds that a baseline takes for the texts of standard input, a JSON list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--cores", type=int, required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    texts = json.load(sys.stdin)
    baseline = Baseline(arguments.graph, arguments.tokenizer, threads=arguments.cores)
    baseline.embed(texts[:WARM_UP_TEXTS], sort=arguments.name != "a")
    began = time.perf_counter()
    baseline.embed(texts, sort=arguments.name != "a")
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
