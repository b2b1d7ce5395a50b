"""Calls that wait for the store, which may hang: they run in threads of their own, and not all calls may be such."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import ContextVar, copy_context
from typing import TypeVar

from nearshore.documents.waiting import check_deadline, late, unless_left

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

    async def run(
        self, call: Callable[[], T], deadline: float | None, abandon: Callable[[T], object] = lambda _: None
    ) -> T:
        """The result of blocking work that asks the store and writes nothing.

        abandon: gets it if the caller leaves meanwhile. Raises OverloadedError, DeadlineError, and what call raises.
        """
        return await unless_left(await self.begin(call, deadline), abandon, deadline, "the store was asked")

    async def begin(self, call: Callable[[], T], deadline: float | None) -> Future[T]:
        """Start blocking work in the caller's context, once a thread is free; it goes on though the caller leaves.

        Raises OverloadedError, DeadlineError: then it was not started.
        """
        claim_store()
        check_deadline(deadline, "the store was asked")
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await self._free.acquire()
        except TimeoutError:
            raise late("The deadline passed before the store could be asked.") from None
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
