"""What the scheduler tells of its work, with a fake model and a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from nearshore.embedding.errors import ModelRunError
from nearshore.embedding.request import TokenIds
from nearshore.embedding.scheduler import Scheduler
from nearshore.records import F32

PATIENCE_S = 20.0


class Heard:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.waits: list[tuple[float, bool]] = []
        self.runs: list[tuple[int, int]] = []

    def waited(self, seconds: float, *, bulk: bool) -> None:
        self.waits.append((seconds, bulk))

    def embedded(self, *, texts: int, tokens: int) -> None:
        self.runs.append((texts, tokens))

    def looked_up(self, *, hits: int, misses: int) -> None:
        raise AssertionError("a scheduler looks nothing up")


def test_each_request_waits_once_and_every_text_counts() -> None:
    """However many runs a request takes, its wait is told once, up to the run that takes its first text."""
    clock, heard, started, go_on = [0.0], Heard(), threading.Semaphore(0), threading.Semaphore(0)

    def embed(texts: Sequence[TokenIds]) -> tuple[F32, F32]:
        started.release()
        assert go_on.acquire(timeout=PATIENCE_S)
        return np.zeros((len(texts), 2), np.float32), np.zeros((len(texts), len(texts[0]), 2), np.float32)

    scheduler = Scheduler(workers=1, max_run_tokens=4, max_queued_tokens=100, clock=lambda: clock[0], observer=heard)
    first = scheduler.submit([[1, 2], [3, 4], [5, 6, 7]], embed=embed, answer=len)
    assert started.acquire(timeout=PATIENCE_S)
    second = scheduler.submit([[1, 2, 3]], embed=embed, answer=len, bulk=True)
    clock[0] = 1.5
    for _ in range(3):
        go_on.release()
    assert (first.result(PATIENCE_S), second.result(PATIENCE_S)) == (3, 1)
    scheduler.close()
    assert heard.waits == [(0.0, False), (1.5, True)]
    assert heard.runs == [(2, 4), (1, 3), (1, 3)]


def test_a_run_that_fails_has_embedded_nothing() -> None:
    """Tokens per second tell what was achieved, not what was tried."""
    heard = Heard()

    def fail(texts: Sequence[TokenIds]) -> tuple[F32, F32]:
        raise MemoryError

    scheduler = Scheduler(workers=1, max_run_tokens=8, max_queued_tokens=100, observer=heard)
    with pytest.raises(ModelRunError):
        scheduler.submit([[1, 2]], embed=fail, answer=len).result(PATIENCE_S)
    scheduler.close()
    assert not heard.runs
    assert len(heard.waits) == 1
