"""Waiting for threads from the event loop, within a caller's deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

from nearshore.documents.errors import ReadAfterTimeoutError
from nearshore.errors import DeadlineError
from nearshore.records import WriteToken
from nearshore.replica import Replica

T = TypeVar("T")


def check_deadline(deadline: float | None, doing: str) -> None:
    """Raise DeadlineError when `deadline` (time.monotonic() seconds) has passed; `doing` says before what."""
    if deadline is not None and time.monotonic() >= deadline:
        raise _late(f"The deadline passed before {doing}.")


async def result_of(future: Future[T], deadline: float | None, doing: str) -> T:
    """Await a future of a thread; cancelled with its caller. Raises DeadlineError when the deadline passes first."""
    if future.done():
        return future.result()
    if deadline is None:
        return await asyncio.wrap_future(future)
    delay_s = deadline - time.monotonic()
    try:
        async with asyncio.timeout(delay_s):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise _late(f"The deadline passed while {doing}.") from None


async def outcome_of(future: Future[T], deadline: float | None) -> T:
    """Await a write that goes on whether its caller stays or not. Raises DeadlineError when the deadline passes."""
    waiting: asyncio.Future[T] = asyncio.wrap_future(future)
    waiting.add_done_callback(_look_at)
    try:
        async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
            return await asyncio.shield(waiting)
    except TimeoutError:
        raise DeadlineError(
            "The deadline passed while the write was being made durable: it may take effect or not.",
            "Repeat it with the same request_id, which writes it at most once, and a longer deadline.",
        ) from None


async def in_thread(executor: Executor, call: Callable[[], T]) -> T:
    """Run blocking work beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(executor, call)


async def reach(replica: Replica, token: WriteToken, deadline: float | None) -> None:
    """Wait until `replica` has applied the write of `token`.

    Raises HistoryChangedError for a token of another history, ReadAfterTimeoutError with the lag at the deadline.
    """
    try:
        await result_of(replica.applied(token), deadline, "waiting")
    except DeadlineError:
        state = replica.state()
        behind = max(token.position - state.position, 0)
        raise ReadAfterTimeoutError(
            f"This replica stands at position {state.position}, {behind} before the write that the read has to see.",
            "Retry with a longer deadline; if the lag persists, look at the collection's status.",
            position=state.position,
            lag=behind,
        ) from None


def _late(message: str) -> DeadlineError:
    return DeadlineError(message, "Nothing was done. Retry with a longer deadline, or with less in one call.")


def _look_at(waiting: asyncio.Future[T]) -> None:
    """Take note of an error that no caller stayed to hear, so that asyncio does not call it lost."""
    if not waiting.cancelled():
        waiting.exception()
