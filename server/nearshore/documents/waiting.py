"""Waiting for threads from the event loop, within a caller's deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from typing import TypeVar

from nearshore.documents.errors import WriteOutcomePendingError
from nearshore.errors import CommitUnknownError, DeadlineError

T = TypeVar("T")
_MAX_TURN_S = 5.0


def check_deadline(deadline: float | None, doing: str) -> None:
    """Raise DeadlineError when `deadline` (time.monotonic() seconds) has passed; `doing` says before what."""
    if deadline is not None and time.monotonic() >= deadline:
        raise late(f"The deadline passed before {doing}.")


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
        raise late(f"The deadline passed while {doing}.") from None


async def turn_of(turn: Future[None], deadline: float | None) -> None:
    """Await the turn of a write; go on anyhow after some seconds, or half the time left, for the write needs some."""
    if turn.done():
        return
    left_s = _MAX_TURN_S if deadline is None else min(_MAX_TURN_S, (deadline - time.monotonic()) / 2)
    try:
        async with asyncio.timeout(left_s):
            await asyncio.wrap_future(turn)  # cancelled with its caller, or when the time is over
    except TimeoutError:
        return


async def outcome_of(future: Future[T], deadline: float | None, *, repeatable: bool) -> T:
    """Await a write that goes on whether its caller stays or not.

    repeatable: it has a request_id. Raises WriteOutcomePendingError, and CommitUnknownError with a remedy for its kind.
    """
    waiting: asyncio.Future[T] = asyncio.wrap_future(future)
    waiting.add_done_callback(_look_at)
    try:
        async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
            return await asyncio.shield(waiting)
    except TimeoutError:
        raise WriteOutcomePendingError(repeatable=repeatable) from None
    except CommitUnknownError as error:
        raise CommitUnknownError(error.detail, repeatable=repeatable) from error


async def in_thread(executor: Executor, call: Callable[[], T]) -> T:
    """Run blocking work beside the event loop, in the caller's context: what it logs carries the call's request id."""
    return await asyncio.get_running_loop().run_in_executor(executor, copy_context().run, call)


def start_in_thread(executor: Executor, call: Callable[[], object]) -> None:
    """Have work done beside the event loop, in the caller's context, whose end the work itself tells."""
    executor.submit(copy_context().run, call)


async def begun(
    executor: Executor, submit: Callable[[], Future[T]], deadline: float | None, *, at_once: bool
) -> Future[T]:
    """What submit leaves under way once it has tokenized; at_once: it takes no time, so not in a thread.

    If the caller goes meanwhile, or the deadline passes (DeadlineError), what it leaves is cancelled.
    """
    if at_once:
        return submit()
    beginning = executor.submit(copy_context().run, submit)
    return await unless_left(beginning, Future.cancel, deadline, "texts were tokenized")


async def unless_left(beginning: Future[T], abandon: Callable[[T], object], deadline: float | None, doing: str) -> T:
    """As result_of; if the caller goes, or the deadline passes, abandon gets the result that comes all the same."""
    try:
        return await result_of(beginning, deadline, doing)
    except (asyncio.CancelledError, DeadlineError):
        beginning.add_done_callback(lambda done: _abandon(done, abandon))
        raise


def _abandon(done: Future[T], abandon: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        abandon(done.result())


def late(message: str) -> DeadlineError:
    """What a caller is told whose deadline passed before anything was done."""
    return DeadlineError(message, "Nothing was done. Retry with a longer deadline, or with less in one call.")


def _look_at(waiting: asyncio.Future[T]) -> None:
    """Take note of an error that no caller stayed to hear, so that asyncio does not call it lost."""
    if not waiting.cancelled():
        waiting.exception()
