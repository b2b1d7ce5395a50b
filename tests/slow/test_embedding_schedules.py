"""Batch invariance: what shares a run, and in which order, moves no bit of a vector."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from nearshore.bundle import Precision
from nearshore.embedding import Embedder, Reuse
from tests.tiny_bert import corpus, make_bundle


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("precision", Precision)
def test_no_schedule_moves_a_vector(tmp_path: Path, precision: Precision, share: bool) -> None:
    """200 texts, each sent twice, have the same bits alone and under 250 random schedules, shared or not."""
    bundle = make_bundle(tmp_path, int8=True).at(precision)
    reuse = Reuse(share_in_flight=share)
    with Embedder.open(bundle, workers=2, max_run_tokens=256, max_queued_tokens=1 << 20, reuse=reuse) as engine:
        compared, cancelled = run_schedules(engine, corpus(200) * 2, schedules=250)
    assert compared > 50_000
    assert cancelled > 1_000


def run_schedules(engine: Embedder, texts: Sequence[str], *, schedules: int, seed: int = 11) -> tuple[int, int]:
    """Embed the texts again and again, by company, order, priority and cancellations that are left to chance.

    Returns how many vectors were compared with those of each text alone, and how many texts were cancelled.
    """
    alone = [engine.embed([text]).vectors[0].tobytes() for text in texts]
    dice = random.Random(seed)
    compared = cancelled = 0
    for schedule in range(schedules):
        order = dice.sample(range(len(texts)), len(texts))
        calls = []
        while order:
            size = min(len(order), dice.choice((1, 1, 2, 5, 20, 80)))
            share, order = order[:size], order[size:]
            calls.append((share, engine.submit([texts[index] for index in share], bulk=dice.random() < 0.5)))
            if dice.random() < 0.1:
                dice.choice(calls)[1].cancel()
        for share, future in calls:
            try:
                vectors = future.result().vectors
            except CancelledError:
                cancelled += len(share)
                continue
            for index, vector in zip(share, vectors, strict=True):
                assert vector.tobytes() == alone[index], f"schedule {schedule}: text {index} has another vector"
            compared += len(share)
    return compared, cancelled
