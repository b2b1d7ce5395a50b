"""Where the time of the int8 network goes, by operator, on one core; and what operators of our own would save of it.

    python -m benchmarks.embedding_profile --into docs/results/profile.json

The runs are a sample of those that the mixed texts make, of as many tokens as the settings allow; ONNX Runtime's own
profiler times every node, of which the least of some repetitions counts. It adds some microseconds to each, so look at
shares, not at times.

The estimate says what share of the time two changes would save at most, each without changing a number:

- Rounding fused into what comes before: LayerNormalization and Gelu write activations that are at once read again to
  be smoothed (Mul) and rounded (QuantizeLinear). An operator that does it while they are in registers saves these
  passes whole but for a few instructions an element; the float32 of a normalization is still written, for the
  residual. What attention gives is rounded too, and not counted here: of three roundings as wide as the network, one.
- Attention without copies: MultiHeadAttention first copies queries, keys and values, to have each head's rows together,
  three passes a layer, while a product by blocks could read them where they are. A pass reads and writes (tokens,
  width) once. It is not timed by itself; an addition in the same run reads as much twice and writes it once, so a copy
  counts as two thirds of the mean addition, and all additions of this network are of that size.

Both leave the integer products, the exponentials and the attention's own products as they are: those bound what more
could be had without a faster product.
"""

import nearshore.threads  # noqa: F401  # first: it limits the threads of native libraries  # isort: skip

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks import bundles, chosen_texts, machine
from benchmarks.embedding_limit import Run, sample_runs
from nearshore.bundle import Bundle, Precision
from nearshore.network import Network

KINDS = {
    "MatMulIntegerToFloat": "integer products",
    "MultiHeadAttention": "attention",
    "Gelu": "Gelu",
    "QuantizeLinear": "QuantizeLinear",
    "Mul": "smoothing",
    "LayerNormalization": "LayerNormalization",
    "SkipLayerNormalization": "LayerNormalization",
    "Add": "additions",
    "MatMul": "float32 products",
}
"""Of operators; all others are the rest."""
REST = "rest"
REPETITIONS = 6  # of each run; the first warms up
_COPIES, _COPY_BY_ADDITION = 3, 2 / 3
_ROUNDED_CONTEXTS = 1 / 3  # of the roundings that are as wide as the network


@dataclass(frozen=True, slots=True)
class Node:
    """A node, as it ran for one of the runs."""

    operator: str
    width: int  # of its first input: the last dimension
    microseconds: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Shares of the network's time that would be saved at most, and the speed that follows."""

    rounding_fused: float
    attention_without_copies: float
    times_as_fast: float


def profile(bundle: Bundle, runs: Sequence[Run]) -> list[Node]:
    """Every node for every run, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:1])
    try:
        with tempfile.TemporaryDirectory() as folder:
            session = _open(bundle, Path(folder))
            for _ in range(REPETITIONS):
                for run in runs:
                    _feed(session, run)
            events = json.loads(Path(session.end_profiling()).read_text())
    finally:
        os.sched_setaffinity(0, cores)
    return _least(events, len(runs))


def shares(nodes: Iterable[Node]) -> dict[str, float]:
    """Of each kind of operator, the largest first."""
    spent: Counter[str] = Counter()
    for node in nodes:
        spent[KINDS.get(node.operator, REST)] += node.microseconds
    return {kind: microseconds / spent.total() for kind, microseconds in spent.most_common()}


def estimate(nodes: Sequence[Node], network: Network, runs: int) -> Estimate:
    """See above. runs: that these nodes are of."""
    total = sum(node.microseconds for node in nodes)
    narrow, wide, smoothing, additions = (
        [node.microseconds for node in nodes if node.operator == operator and width in {None, node.width}]
        for operator, width in (
            ("QuantizeLinear", network.hidden_size),
            ("QuantizeLinear", network.intermediate_size),
            ("Mul", None),
            ("Add", None),
        )
    )
    rounding = (sum(narrow) * (1 - _ROUNDED_CONTEXTS) + sum(wide) + sum(smoothing)) / total
    copies = runs * network.layers * _COPIES
    copying = copies * _COPY_BY_ADDITION * sum(additions) / max(1, len(additions)) / total
    return Estimate(rounding, copying, 1 / (1 - rounding - copying))


def _open(bundle: Bundle, folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    return onnxruntime.InferenceSession(bundle.model_path, options, providers=["CPUExecutionProvider"])


def _feed(session: onnxruntime.InferenceSession, run: Run) -> None:
    ids = np.array(run, np.int64)
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    session.run(["sequence_output"], {each.name: values[each.name] for each in session.get_inputs()})


def _least(events: Iterable[Mapping[str, Any]], runs: int) -> list[Node]:
    """Of each node and run the fastest repetition, from a profile, which has an event at the end of each execution."""
    least: dict[tuple[str, int], Node] = {}
    executions = 0
    for event in sorted(events, key=lambda event: event["ts"] + event["dur"]):
        executions += event["name"] == "model_run"
        if event["cat"] != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        facts, key = event["args"], (event["name"], executions % runs)
        if key not in least or event["dur"] < least[key].microseconds:
            (shape,) = facts["input_type_shape"][0].values()
            least[key] = Node(facts["op_name"], shape[-1] if shape else 1, event["dur"])
    return list(least.values())


def main() -> None:
    """Print shares, estimate and machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, help="also write the JSON to this file")
    into = parser.parse_args().into
    bundle = bundles.with_int8().at(Precision.INT8)
    runs = sample_runs(bundle, chosen_texts.mixed())
    nodes = profile(bundle, runs)
    result = {
        "machine": machine.describe(),
        "precisions": [Precision.INT8],
        "runs": len(runs),
        "tokens": sum(len(text) for run in runs for text in run),
        "shares": shares(nodes),
        "estimate": asdict(estimate(nodes, bundle.manifest.network, len(runs))),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if into is not None:
        into.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
