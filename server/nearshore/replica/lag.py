"""How long a view has lacked commits that the store is known to have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_MAX_HEADS = 1_024


class Lag:
    """Told by the follower thread, read by any. A commit's own time is not used: clocks of machines differ."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """clock: seconds."""
        self._clock = clock
        self._heads: deque[tuple[int, float]] = deque()  # not yet applied: position, when it was heard of; ascending
        self._applied = 0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Since the oldest commit that is not applied was heard of; 0 when all known ones are applied."""
        since = self._since
        return 0.0 if since is None else max(0.0, self._clock() - since)

    def heard(self, head: int) -> None:
        """The store has commits up to this position."""
        heads = self._heads
        while heads and heads[-1][0] > head:  # another history, which is shorter
            heads.pop()
        if head > (heads[-1][0] if heads else self._applied):
            now = self._clock()
            if len(heads) == _MAX_HEADS:
                _, now = heads.pop()  # said of a later commit as well: too much rather than too little
            heads.append((head, now))
        self._tell()

    def applied(self, position: int) -> None:
        """The view shows all commits up to this position."""
        self._applied = position
        while self._heads and self._heads[0][0] <= position:
            self._heads.popleft()
        self._tell()

    def lost(self) -> None:
        """The view belongs to another history than the store's: it lacks whatever the store has."""
        self._applied = 0
        self._heads.clear()
        self._tell()

    def _tell(self) -> None:
        self._since = self._heads[0][1] if self._heads else None
