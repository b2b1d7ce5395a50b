"""Back-pressure: writers wait a little while the follower is busy with a walk that they keep longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

_LONG_WALK_S = 1.0


class Pace:
    """How long the present walk over the feed has been going on, and who waits for its end. Thread-safe.

    A walk cannot be cut short: a row that was written anew has moved to its end, so the view would lack it until then.
    It does end soon when little is written.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, as time.monotonic()."""
        self._clock = clock
        self._lock = threading.Lock()
        self._walking_since: float | None = None
        self._waiting: set[Future[None]] = set()

    def walking(self) -> None:
        """A walk has begun, or goes on."""
        with self._lock:
            if self._walking_since is None:
                self._walking_since = self._clock()

    def resting(self) -> None:
        """No walk is going on, or it cannot go on: nobody need wait for it."""
        with self._lock:
            self._walking_since = None
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            try:
                future.set_result(None)
            except InvalidStateError:  # cancelled by its holder
                continue

    def turn(self) -> Future[None]:
        """Resolves when a write should go on: at once, or at the end of a walk of more than a second.

        Never blocks and never fails. Whoever waits no longer cancels it.
        """
        future: Future[None] = Future()
        with self._lock:
            since = self._walking_since
            late = since is not None and self._clock() - since > _LONG_WALK_S
            if late:
                self._waiting.add(future)
        if late:
            future.add_done_callback(self._forget)
        else:
            future.set_result(None)
        return future

    def _forget(self, future: Future[None]) -> None:
        with self._lock:
            self._waiting.discard(future)
