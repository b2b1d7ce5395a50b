"""The corpora that benchmarks and slow tests read, from the folder that NEARSHORE_TEST_DATA names."""

import gzip
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearshore.records import F32

VARIABLE = "NEARSHORE_TEST_DATA"


def folder() -> Path | None:
    """Where the corpora are; None where the environment does not say."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def require_folder() -> Path:
    """Where the corpora are. Raises SystemExit with what to do when the environment does not say."""
    found = folder()
    if found is None:
        raise SystemExit(f"Set {VARIABLE} to the folder that holds the corpora (see benchmarks/README.md).")
    return found


def passages_path() -> Path:
    """The large collection of short passages, JSON lines of id, title, text and metadata."""
    return require_folder() / "passages.jsonl.gz"


def read_passages(path: Path) -> Iterator[dict[str, Any]]:
    """The passages of a JSON lines file, compressed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def passages(step: int = 1) -> Iterator[dict[str, Any]]:
    """Every step-th passage of the large collection."""
    return itertools.islice(read_passages(passages_path()), 0, None, step)


def write_sample(path: Path, step: int) -> int:
    """Write every step-th passage to a JSON lines file; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as lines:
        for row in passages(step):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_parts(folder: Path, parts: int) -> dict[Path, int]:
    """Write the passages, in their order, into so many JSON lines files; returns how many each has."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in passages()]
    size = -(-len(lines) // parts)
    written = {}
    for number, start in enumerate(range(0, len(lines), size)):
        path = folder / f"part-{number}.jsonl"
        path.write_text("".join(lines[start : start + size]), encoding="utf-8")
        written[path] = len(lines[start : start + size])
    return written


@dataclass(frozen=True, slots=True)
class Reference:
    """Awkward texts and the vectors that sentence-transformers gives for them."""

    texts: list[str]
    vectors: F32  # (len(texts), dimensions), normalized


def reference() -> Reference:
    """The 500 reference texts."""
    base = require_folder() / "reference"
    rows = [json.loads(line) for line in (base / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    vectors: F32 = np.load(base / "embeddings.npy")
    return Reference([row["text"] for row in rows], vectors)


def similar_sentences() -> tuple[list[float], list[str], list[str]]:
    """The STS benchmark's development set: judgements from 0 to 5, and the two sentences of each."""
    lines = (require_folder() / "sts" / "stsb-dev.tsv").read_text(encoding="utf-8").splitlines()
    scores, first, second = zip(*(line.split("\t") for line in lines), strict=True)
    return [float(score) for score in scores], list(first), list(second)
