"""How fast the engine embeds, beside what scripts of onnxruntime alone do with the same weights.

    NEARSHORE_TEST_DATA=FOLDER make bench-embed        with texts of the corpora
    make bench-embed                                   with texts made here

Each side (see embedding_engine and embedding_baselines) runs in a process of its own; in every round each takes its
turn with texts of each kind (see chosen_texts), on all cores and on one. A speed is the median of the rounds, a ratio
the median of the rounds' ratios. Baseline a is so slow that each round gives it another third of the texts; nearly each
of its runs is as long as the longest text all the same. So it is with one core, for all but the engine in int8, which
is compared with itself on all cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import (
    bundles,
    chosen_texts,
    corpora,
    embedding_baselines,
    embedding_chart,
    embedding_latency,
    embedding_limit,
    machine,
)
from nearshore.bundle import Bundle, Precision

ROUNDS = 3
ENGINE = tuple(precision.value for precision in Precision)
THIRDS = 3


@dataclass(frozen=True, slots=True)
class Side:
    """One thing that is timed."""

    kind: str  # of the texts
    name: str  # a precision of the engine, or a baseline
    cores: int

    @property
    def parts(self) -> int:
        """Of the texts, each round takes one of so many parts."""
        slow, single = self.name == "a", self.cores == 1 and self.name != "int8"
        return (THIRDS if slow else 1) * (THIRDS if single else 1)


@dataclass(frozen=True, slots=True)
class Speed:
    """Of a side, by rounds: the same index is the same round."""

    texts_per_s: list[float]
    tokens_per_s: list[float]

    def times(self, other: "Speed") -> float:
        """How many times as fast as another side it is."""
        return statistics.median(
            ours / theirs for ours, theirs in zip(self.texts_per_s, other.texts_per_s, strict=True)
        )


class Sides:
    """Everything that is timed, over the same texts."""

    def __init__(self, bundle: Bundle, texts: Mapping[str, Sequence[str]], scratch: Path) -> None:
        """texts: by their kind; scratch: a folder for the graph of baseline c, which is made here."""
        self._bundle, self._texts = bundle, texts
        self.tokens = {kind: embedding_limit.token_counts(bundle, each) for kind, each in texts.items()}
        self._graphs = dict.fromkeys(embedding_baselines.NAMES, bundle.at(Precision.FP32).model_path)
        self._graphs["c"] = scratch / "dynamic.onnx"
        embedding_baselines.quantize(bundle.at(Precision.FP32).model_path, self._graphs["c"])

    def measure(self, sides: Sequence[Side], rounds: int) -> dict[Side, Speed]:
        """Rounds in which each side takes its turn."""
        speeds = {side: Speed([], []) for side in sides}
        for number in range(rounds):
            for side, speed in speeds.items():
                chosen = slice(number % side.parts, None, side.parts)
                texts = self._texts[side.kind][chosen]
                seconds = self._run(side, texts)
                speed.texts_per_s.append(len(texts) / seconds)
                speed.tokens_per_s.append(sum(self.tokens[side.kind][chosen]) / seconds)
                report = f"round {number + 1}: {side.name}, {side.kind} texts, {side.cores} core(s): "
                report += f"{speed.texts_per_s[-1]:.1f} texts/s"
                print(report, file=sys.stderr, flush=True)
        return speeds

    def _run(self, side: Side, texts: Sequence[str]) -> float:
        """Seconds, as the side's own process measures them."""
        if side.name in ENGINE:
            command = ["benchmarks.embedding_engine", side.name]
        else:
            files = [f"--graph={self._graphs[side.name]}", f"--tokenizer={self._bundle.tokenizer_path}"]
            command = ["benchmarks.embedding_baselines", side.name, *files]
        done = subprocess.run(
            [sys.executable, "-m", *command, f"--cores={side.cores}"],
            input=json.dumps(texts),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return float(done.stdout)


def measure(rounds: int, count: int, singles: int) -> dict[str, Any]:
    """Everything, as JSON has it."""
    bundle = bundles.with_int8()
    texts = chosen_texts.by_kind(count)
    cores = len(os.sched_getaffinity(0))
    names = (*ENGINE, *embedding_baselines.NAMES)
    wanted = [Side(kind, name, each) for kind in texts for each in (cores, 1) for name in names]
    with tempfile.TemporaryDirectory() as scratch:
        sides = Sides(bundle, texts, Path(scratch))
        speeds = sides.measure(wanted, rounds)
    single = embedding_latency.measure_single(bundle, cores)
    company_ms = 1e3 * embedding_baselines.RUN_TEXTS / statistics.median(speeds[Side("mixed", "a", cores)].texts_per_s)
    return {
        "machine": machine.describe(),
        "texts": {kind: {"count": len(each), "tokens": sum(sides.tokens[kind])} for kind, each in texts.items()},
        "texts_from": "made" if corpora.folder() is None else "corpora",
        "rounds": rounds,
        "speed": [
            {
                **asdict(side),
                "texts_per_s": statistics.median(speed.texts_per_s),
                "tokens_per_s": statistics.median(speed.tokens_per_s),
            }
            for side, speed in speeds.items()
        ],
        "int8": {kind: _ratios(speeds, kind, cores) for kind in texts},
        "single_text": {
            "precision": Precision.INT8,
            **asdict(single),
            "baseline_a_run_ms": company_ms,
            "engine_over_baseline_a_run": single.engine_ms / company_ms,
        },
        "under_load": {
            "precision": Precision.INT8,
            **asdict(embedding_latency.measure_under_load(bundle, singles=singles)),
        },
        "integer_limit": asdict(embedding_limit.measure(bundle.at(Precision.INT8), texts["mixed"])),
    }


def _ratios(speeds: Mapping[Side, Speed], kind: str, cores: int) -> dict[str, Any]:
    """The int8 engine over texts of one kind: beside the other sides, and beside itself on one core."""
    int8 = speeds[Side(kind, "int8", cores)]
    others = {side.name: speed for side, speed in speeds.items() if (side.kind, side.cores) == (kind, cores)}
    return {
        "times_as_fast_as": {name: int8.times(speed) for name, speed in others.items() if name != "int8"},
        "all_cores_times_one": int8.times(speeds[Side(kind, "int8", 1)]),
    }


def main() -> None:
    """Print the figures and the machine as JSON; progress goes to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the speeds")
    parser.add_argument("--texts", type=int, default=chosen_texts.COUNT, help="mixed, and short ones")
    parser.add_argument("--singles", type=int, default=embedding_latency.SINGLES, help="calls a phase at the server")
    parser.add_argument("--into", type=Path, help="also write the JSON to this file, and a chart beside it as .png")
    arguments = parser.parse_args()
    result = measure(arguments.rounds, arguments.texts, arguments.singles)
    print(json.dumps(result, indent=2))
    if arguments.into is not None:
        arguments.into.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        embedding_chart.draw(result, arguments.into.with_suffix(".png"))


if __name__ == "__main__":
    main()
