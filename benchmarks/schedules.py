"""Batch invariance: do company, order, priority and cancellations move a bit of a vector?"""

import random
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass

from nearshore.embedding import Embedder

CALL_SIZES = (1, 1, 2, 5, 20, 80)  # texts, each as likely


@dataclass(frozen=True, slots=True)
class Invariance:
    """What was looked at; a vector that differs raises."""

    compared: int  # vectors, with those of each text alone
    cancelled: int  # texts


def run_schedules(engine: Embedder, texts: Sequence[str], *, schedules: int, seed: int = 11) -> Invariance:
    """Embed all texts once a schedule, in calls that are left to chance: size, order, priority, cancellation.

    Raises AssertionError at the first vector that is not, bit for bit, that of its text alone.
    """
    alone = [engine.embed([text]).vectors[0].tobytes() for text in texts]
    dice = random.Random(seed)
    compared = cancelled = 0
    for schedule in range(schedules):
        order = dice.sample(range(len(texts)), len(texts))
        calls = []
        while order:
            size = min(len(order), dice.choice(CALL_SIZES))
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
    return Invariance(compared, cancelled)
