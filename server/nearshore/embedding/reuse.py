"""How far what is computed for one text serves others that are identical (docs/decisions/0009)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nearshore.embedding.observer import Observer
from nearshore.embedding.request import KeepTokens, TokenIds, key_of
from nearshore.embedding.scheduler import Scheduler
from nearshore.embedding.vector_cache import VectorCache
from nearshore.records import F32

T = TypeVar("T")
Start = Callable[[Callable[[], None]], object]
"""Has a call made, by whichever thread, and does not wait for it."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """What an engine does about texts whose token ids are those of another. No bit of a vector depends on it."""

    share_in_flight: bool = True  # have those that are under way at the same time embedded once
    cache_bytes: int = 0  # of vectors that are kept; 0: none are


AS_USUAL = Reuse()


class Intake:
    """Answers texts whose vectors are kept, and queues the others. Thread-safe."""

    def __init__(self, scheduler: Scheduler, reuse: Reuse, observer: Observer | None) -> None:
        """observer: told of texts that were looked up; the scheduler is the caller's to close."""
        self._scheduler = scheduler
        self._share = reuse.share_in_flight
        self._cache = VectorCache(reuse.cache_bytes) if reuse.cache_bytes else None
        self._observer = observer

    @property
    def cache_bytes(self) -> int:
        """Bytes of the vectors that are kept."""
        return 0 if self._cache is None else self._cache.bytes

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
        if self._cache is None or bulk or keep_tokens is not None:
            return self._scheduler.submit(
                texts, answer=answer, keep_tokens=keep_tokens, bulk=bulk, deadline=deadline, share=self._share
            )
        cache, keys = self._cache, [key_of(ids) for ids in texts]
        vectors = cache.find(keys)
        missing = [position for position, vector in enumerate(vectors) if vector is None]
        if self._observer is not None:
            self._observer.looked_up(hits=len(texts) - len(missing), misses=len(missing))
        if not missing:
            return _answered(lambda: answer(_stacked(vectors)), start_known)

        def complete(made: F32) -> T:
            cache.keep([keys[position] for position in missing], made)
            for position, vector in zip(missing, made, strict=True):
                vectors[position] = vector
            return answer(_stacked(vectors))

        needed = [texts[position] for position in missing]
        return self._scheduler.submit(needed, answer=complete, bulk=bulk, deadline=deadline, share=self._share)


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
