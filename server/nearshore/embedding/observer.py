"""Who wants to know what the workers do."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told in a worker thread while texts wait: its methods are quick and raise nothing."""

    def waited(self, seconds: float, *, bulk: bool) -> None:
        """The first text of a request is taken by a run, so long after the request was queued."""

    def embedded(self, *, texts: int, tokens: int) -> None:
        """A run has ended well."""
