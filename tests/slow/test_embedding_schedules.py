"""Batch invariance: what shares a run, and in which order, moves no bit of a vector."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import mixed_texts, random_schedules
from nearshore.bundle import Precision
from nearshore.embedding import Embedder
from tests.tiny_bert import make_bundle


@pytest.mark.parametrize("precision", Precision)
def test_no_schedule_moves_a_vector(tmp_path: Path, precision: Precision) -> None:
    """200 texts have the same bits alone and under 500 random schedules of a precision."""
    bundle = make_bundle(tmp_path, int8=True).at(precision)
    texts = mixed_texts.make(random_schedules.TEXTS)
    with Embedder.open(bundle, workers=2, max_run_tokens=256, max_queued_tokens=1 << 20) as engine:
        compared, cancelled = random_schedules.run(engine, texts, schedules=500)
    assert compared > 50_000
    assert cancelled > 1_000
