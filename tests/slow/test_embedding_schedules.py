"""Batch invariance: what shares a run, and in which order, moves no bit of a vector."""

from pathlib import Path

import pytest

from benchmarks.schedules import run_schedules
from nearshore.bundle import Precision
from nearshore.embedding import Embedder, Reuse
from tests.tiny_bert import corpus, make_bundle


@pytest.mark.parametrize(("share", "schedules"), [(False, 500), (True, 100)])
@pytest.mark.parametrize("precision", Precision)
def test_no_schedule_moves_a_vector(tmp_path: Path, precision: Precision, share: bool, schedules: int) -> None:
    """200 texts, each sent twice, have the same bits alone and under random schedules, shared or not."""
    bundle = make_bundle(tmp_path, int8=True).at(precision)
    reuse = Reuse(share_in_flight=share)
    with Embedder.open(bundle, workers=2, max_run_tokens=256, max_queued_tokens=1 << 20, reuse=reuse) as engine:
        found = run_schedules(engine, corpus(200) * 2, schedules=schedules)
    assert found.compared > 200 * schedules
    assert found.cancelled > 2 * schedules
