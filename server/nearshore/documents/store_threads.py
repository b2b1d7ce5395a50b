"""Calls that wait for the store, which may hang: they run in threads of their own, and not all calls may be such."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import ContextVar, copy_context
from typing import TypeVar

from nearshore.documents.waiting import unless_left

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
    """The threads of calls that ask the store. What waits for one waits on the event loop, not in the executor's queue.

    That would keep what a caller sent until a thread is free, long after the caller has left: while the store hangs,
    without bound.
    """

    def __init__(self, executor: Executor, threads: int) -> None:
        """Run calls there, at most `threads` at once: as many as it has."""
        self._executor = executor
        self._free = asyncio.Semaphore(threads)

    async def run(self, call: Callable[[], T]) -> T:
        """The result of blocking work that asks the store. Raises OverloadedError, and what it raises."""
        return await asyncio.wrap_future(await self._begin(call))

    async def begun(self, begin: Callable[[], T], abandon: Callable[[T], object]) -> T:
        """As run, for work that leaves something under way: if the caller goes meanwhile, abandon gets what it left."""
        return await unless_left(await self._begin(begin), abandon)

    async def _begin(self, call: Callable[[], T]) -> Future[T]:
        """Start work in the caller's context, once a thread is free."""
        claim_store()
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        try:
            future = self._executor.submit(copy_context().run, call)
        except BaseException:
            self._free.release()
            raise
        future.add_done_callback(lambda _: self._release(loop))  # the thread may go on when the caller has left
        return future

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._free.release)
