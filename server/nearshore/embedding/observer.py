"""Who wants to know what the workers do."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told while texts wait, in a worker thread unless said otherwise: its methods are quick and raise nothing."""

    def waited(self, seconds: float, *, bulk: bool) -> None:
        """The first text of a request is taken by a run, so long after the request was queued."""

    def embedded(self, *, texts: int, tokens: int) -> None:
        """A run has ended well."""

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Of so many texts the vectors were kept, and of so many not. Told in the thread that submits them."""
