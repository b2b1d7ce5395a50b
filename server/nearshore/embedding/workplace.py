"""What the models of a process have in common: the workers, and the room for vectors that are kept."""

from __future__ import annotations

from dataclasses import dataclass

from nearshore.embedding.cores import usable_cores
from nearshore.embedding.observer import Observer
from nearshore.embedding.scheduler import Scheduler
from nearshore.embedding.vector_cache import VectorCache


@dataclass(frozen=True, slots=True)
class Reuse:
    """What is done about texts whose token ids are those of another. No bit of a vector depends on it."""

    share_in_flight: bool = True  # have those that are under way at the same time embedded once
    cache_bytes: int = 0  # of vectors that are kept; 0: none are


AS_USUAL = Reuse()


class Workplace:
    """One scheduler and one cache of vectors, for any number of models. Thread-safe; close it."""

    def __init__(
        self,
        *,
        workers: int = 0,
        max_run_tokens: int,
        max_queued_tokens: int,
        reuse: Reuse = AS_USUAL,
        observer: Observer | None = None,
    ) -> None:
        """Start the workers (0: one a usable core); reuse: of vectors, by identical texts; observer: told of all."""
        self.scheduler = Scheduler(
            workers=workers or usable_cores(),
            max_run_tokens=max_run_tokens,
            max_queued_tokens=max_queued_tokens,
            observer=observer,
        )
        self.share_in_flight = reuse.share_in_flight
        self.cache = VectorCache(reuse.cache_bytes) if reuse.cache_bytes else None
        self.observer = observer

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a worker, whichever model they are for."""
        return self.scheduler.queued_tokens

    @property
    def cache_bytes(self) -> int:
        """Bytes of the vectors that are kept, of all models."""
        return 0 if self.cache is None else self.cache.bytes

    def close(self) -> None:
        """Fail what waits, let the runs in progress end, and stop the workers."""
        self.scheduler.close()
