"""Retrieval quality is that of the reference implementation."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nearshore.exit_codes import ExitCode

# sentence-transformers, fp32, exact cosine, all-MiniLM-L6-v2
REFERENCE = {"cranfield": (0.39532, 0.77557), "med": (0.78750, 0.95790), "adi": (0.49749, 1.0)}


@pytest.mark.parametrize("name", REFERENCE)
def test_ranking_quality_equals_the_reference(data: Path, name: str) -> None:
    """nDCG@10 and recall@100 of `nearshore eval` are within 0.002 of sentence-transformers'."""
    folder = data / name
    done = subprocess.run(
        [
            sys.executable, "-m", "nearshore", "--json", "eval", "--exact",
            "--corpus", str(folder / "corpus.jsonl"),
            "--queries", str(folder / "queries.jsonl"),
            "--qrels", str(folder / "qrels.tsv"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode in {ExitCode.OK, ExitCode.REJECTED}, done.stderr  # two of cranfield have no text
    figures = json.loads(done.stdout)
    ndcg, recall = REFERENCE[name]
    assert abs(figures["ndcg@10"] - ndcg) <= 0.002
    assert abs(figures["recall@100"] - recall) <= 0.002
