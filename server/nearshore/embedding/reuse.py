"""How far what is computed for one text serves others that are identical (docs/decisions/0009)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from typing import TypeVar

import numpy as np

from nearshore.embedding.request import Embed, KeepTokens, TokenIds, key_of
from nearshore.embedding.workplace import Workplace
from nearshore.records import F32

T = TypeVar("T")
Start = Callable[[Callable[[], None]], object]
"""Has a call made, by whichever thread, and does not wait for it."""

_MARK_BYTES = 8
_numbers = count()  # of engines; of one process, and never given twice


class Intake:
    """Answers texts of one model whose vectors are kept, and queues the others. Thread-safe."""

    def __init__(self, embed: Embed, workplace: Workplace) -> None:
        """embed: the model; the workplace is the caller's to close."""
        self._embed = embed
        self._workplace = workplace
        # Not what the model is called or means: one that is loaded again may be another, or differ in the last bit.
        self._mark = next(_numbers).to_bytes(_MARK_BYTES)

    def submit(
        self,
        texts: Sequence[TokenIds],
        *,
        answer: Callable[[F32], T],
        keep_tokens: KeepTokens | None = None,
        bulk: bool,
        deadline: float | None,
        start_known: Start,
    ) -> Future[T]:
        """As Scheduler.submit. Where all vectors are kept, start_known has the answer made, and nothing waits.

        Bulk texts are neither looked up nor kept: documents come once, and many would push out every query. Nor are
        those whose tokens are wanted, of which no vectors are kept.
        """
        cache = self._workplace.cache
        if cache is None or bulk or keep_tokens is not None:
            return self._queue(texts, answer, keep_tokens=keep_tokens, bulk=bulk, deadline=deadline)
        keys = [self._mark + key_of(ids) for ids in texts]
        vectors = cache.find(keys)
        missing = [position for position, vector in enumerate(vectors) if vector is None]
        if self._workplace.observer is not None:
            self._workplace.observer.looked_up(hits=len(texts) - len(missing), misses=len(missing))
        if not missing:
            return _answered(lambda: answer(_stacked(vectors)), start_known)

        def complete(made: F32) -> T:
            cache.keep([keys[position] for position in missing], made)
            for position, vector in zip(missing, made, strict=True):
                vectors[position] = vector
            return answer(_stacked(vectors))

        needed = [texts[position] for position in missing]
        return self._queue(needed, complete, keep_tokens=None, bulk=bulk, deadline=deadline)

    def _queue(
        self,
        texts: Sequence[TokenIds],
        answer: Callable[[F32], T],
        *,
        keep_tokens: KeepTokens | None,
        bulk: bool,
        deadline: float | None,
    ) -> Future[T]:
        return self._workplace.scheduler.submit(
            texts,
            embed=self._embed,
            answer=answer,
            keep_tokens=keep_tokens,
            bulk=bulk,
            deadline=deadline,
            share=self._workplace.share_in_flight,
        )


def _stacked(vectors: Sequence[F32 | None]) -> F32:
    return np.stack([vector for vector in vectors if vector is not None])


def _answered(answer: Callable[[], T], start: Start) -> Future[T]:
    """The future of an answer that is made without waiting for the model; cancelled before it begins, it is not."""
    future: Future[T] = Future()

    def finish() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = answer()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    start(finish)
    return future
