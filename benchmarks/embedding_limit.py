"""What share of the speed of bare integer products the int8 network reaches, on one core.

The limit is what MatMulInteger calls of the same shapes take, on the same number of rows, with one layer's weights
again and again. Only products with weights count as work: whatever else the network does lowers its share.
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.embedding_direct import runs_of
from nearshore.bundle import Bundle
from nearshore.embedding.session import Session
from nearshore.embedding.tokenizer import Tokenizer
from nearshore.network import Network
from nearshore.settings import EmbeddingSettings

RUNS = 40
_REPETITIONS = 5
Run = Sequence[Sequence[int]]  # texts of one length
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Limit:
    """Thousand millions of multiply-adds with weights a second, over runs as the texts make them."""

    bare_gmac_per_s: float
    network_gmac_per_s: float
    share: float


def measure(bundle: Bundle, texts: Sequence[str]) -> Limit:
    """Time a sample of the runs that the texts make, each in turns with the bare products of as many rows."""
    network = bundle.manifest.network
    runs = sample_runs(bundle, texts)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:1])
    try:
        session, products = Session(bundle), _open_products(network)
        pairs = [
            _least_s(partial(session.run, run), partial(_multiply, products, _inputs(network, run))) for run in runs
        ]
    finally:
        os.sched_setaffinity(0, cores)
    network_s, layer_s = (sum(seconds) for seconds in zip(*pairs, strict=True))
    bare_s = layer_s * network.layers
    gmac = 1e-9 * sum(_tokens(run) for run in runs) * network.layers * sum(k * n for k, n in _shapes(network))
    return Limit(gmac / bare_s, gmac / network_s, bare_s / network_s)


def sample_runs(bundle: Bundle, texts: Sequence[str]) -> list[Run]:
    """Some of the runs that the texts make when all wait, the same at every call."""
    runs = list(runs_of(_used_ids(bundle, texts), EmbeddingSettings().max_run_tokens))
    return random.Random(5).sample(runs, min(RUNS, len(runs)))


def token_counts(bundle: Bundle, texts: Sequence[str]) -> list[int]:
    """Tokens of each text that are embedded."""
    return [len(ids) for ids in _used_ids(bundle, texts)]


def _used_ids(bundle: Bundle, texts: Sequence[str]) -> list[list[int]]:
    manifest = bundle.manifest
    tokenizer = Tokenizer(bundle.tokenizer_path, max_tokens=manifest.max_tokens, special=manifest.special_tokens)
    return [tokens.used_ids for tokens in tokenizer.encode(texts)]


def _tokens(run: Run) -> int:
    return sum(map(len, run))


def _least_s(network: Callable[[], object], bare: Callable[[], object]) -> tuple[float, float]:
    """The least seconds of each of two calls that take turns."""
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(_REPETITIONS + 1):  # the first warms up
        for call, times in zip((network, bare), seconds, strict=True):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
    return min(seconds[0][1:]), min(seconds[1][1:])


def _shapes(network: Network) -> list[tuple[int, int]]:
    """(in, out) of a layer's weights: query, key and value together, attention's output, both of the feed-forward."""
    width, wide = network.hidden_size, network.intermediate_size
    return [(width, 3 * width), (width, width), (width, wide), (wide, width)]


def _multiply(products: Sequence[onnxruntime.InferenceSession], inputs: Sequence[U8]) -> None:
    """All products of a layer."""
    for product, rows in zip(products, inputs, strict=True):
        product.run(None, {"rows": rows})


def _inputs(network: Network, run: Run) -> list[U8]:
    """Random activations, one row a token."""
    dice = np.random.default_rng(1)
    return [dice.integers(0, 256, (_tokens(run), width), np.uint8) for width, _ in _shapes(network)]


def _open_products(network: Network) -> list[onnxruntime.InferenceSession]:
    """A graph of one MatMulInteger for each shape, with random weights."""
    dice = np.random.default_rng(2)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = []
    for width, columns in _shapes(network):
        values = dice.integers(-127, 128, (width, columns), np.int8)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["rows", "weight"], ["product"])],
            "bare",
            [helper.make_tensor_value_info("rows", TensorProto.UINT8, ["count", width])],
            [helper.make_tensor_value_info("product", TensorProto.INT32, ["count", columns])],
            [numpy_helper.from_array(values, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        sessions.append(
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        )
    return sessions
