"""Which collections this process is creating: from its commit to its first view one is nobody's but its creator's."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_CREATOR_FIRST_S = 1.0  # from its commit to its first view it takes no time


class Creations:
    """The names being created. Thread-safe."""

    def __init__(self) -> None:
        """None yet."""
        self._changed = threading.Condition()
        self._names: Counter[str] = Counter()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """The block creates a collection of this name; that may take as long as a standby is missing."""
        with self._changed:
            self._names[name] += 1
        try:
            yield
        finally:
            with self._changed:
                self._names[name] -= 1
                self._names += Counter()  # keeps those above zero
                self._changed.notify_all()

    def under_way(self, name: str) -> bool:
        """Whether this name is being created."""
        with self._changed:
            return self._names[name] > 0

    def wait_for(self, name: str) -> None:
        """Let who creates this name, if anybody does, come first, but do not wait as for a missing standby."""
        with self._changed:
            self._changed.wait_for(lambda: not self._names[name], _CREATOR_FIRST_S)
