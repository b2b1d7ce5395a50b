"""The same texts under random schedules: company, order, priority, cancellations. No vector may move by a bit."""

import random
from collections.abc import Sequence
from concurrent.futures import CancelledError

from nearshore.embedding import Embedder

TEXTS = 200


def run(engine: Embedder, texts: Sequence[str], *, schedules: int, seed: int = 11) -> tuple[int, int]:
    """Embed the texts again and again; returns how many vectors were compared, and how many texts were cancelled.

    Raises AssertionError when a vector differs from that of its text alone.
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
