"""Calls that wait for the store, which may hang: they run in threads of their own, and not all calls may be such."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import TypeVar

from nearshore.documents.waiting import begun_in_thread, in_thread

T = TypeVar("T")


def _unbounded() -> None:
    """Where nobody counts calls."""


_claim: ContextVar[Callable[[], None]] = ContextVar("claim", default=_unbounded)


def let_claim(claim: Callable[[], None]) -> None:
    """Have the present call use `claim` before it waits for the store: it raises OverloadedError if too many do."""
    _claim.set(claim)


def claim_store() -> None:
    """Count the present call, until it ends, among those that wait for the store. Raises OverloadedError."""
    _claim.get()()


class StoreThreads:
    """The threads of calls that ask the store."""

    def __init__(self, executor: Executor) -> None:
        """Run calls there."""
        self._executor = executor

    async def run(self, call: Callable[[], T]) -> T:
        """The result of blocking work that asks the store. Raises OverloadedError, and what it raises."""
        claim_store()
        return await in_thread(self._executor, call)

    async def begun(self, begin: Callable[[], T], abandon: Callable[[T], object]) -> T:
        """As run, for work that leaves something under way: if the caller goes meanwhile, abandon gets what it left."""
        claim_store()
        return await begun_in_thread(self._executor, begin, abandon)
