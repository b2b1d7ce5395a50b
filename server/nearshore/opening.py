"""Steps of a start that may take long, above all reaching a store that comes later than this process.

As PostgreSQL does in a cluster whose pods all start together. A signal is seen meanwhile, and obeyed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

import structlog

from nearshore.errors import NearshoreError
from nearshore.store.base import Store
from nearshore.store.errors import StoreUnavailableError
from nearshore.store.schema import folder_error

Result = TypeVar("Result")

STEP_S = 2.0  # that a step gets once the process is to end: then it would end in order
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 5.0

log = structlog.get_logger(__name__)


class Steps:
    """Steps of a start, each in a thread of a pool."""

    def __init__(self, pool: Executor, data_dir: Path, ended: asyncio.Event, leave: Callable[[], None]) -> None:
        """leave: called when a step still goes on STEP_S after `ended` is set; it has to end the process."""
        self._pool = pool
        self._data_dir = data_dir
        self._ended = ended
        self._leave = leave

    def begin(self, step: Callable[[], Result]) -> asyncio.Future[Result]:
        """Begin with a step: end() waits for it."""
        return asyncio.get_running_loop().run_in_executor(self._pool, step)

    async def end(self, step: asyncio.Future[Result]) -> Result:
        """What a step gives. Raises what it raises."""
        happened = asyncio.ensure_future(self._ended.wait())
        await asyncio.wait((step, happened), return_when=asyncio.FIRST_COMPLETED)
        happened.cancel()
        await asyncio.wait((step,), timeout=STEP_S)
        if not step.done():
            self._leave()
        return await step

    async def take(self, step: Callable[[], Result]) -> Result:
        """Begin with a step, and wait for it."""
        return await self.end(self.begin(step))

    async def open(self, opening: Callable[[], Result]) -> Result:
        """Open a part that has files in the data folder. Raises NearshoreError for what the system says of them."""
        try:
            return await self.take(opening)
        except OSError as error:
            raise folder_error(self._data_dir, error, "opening") from error


async def reach_store(
    open_once: Callable[[], Awaitable[Store]], serve: Callable[[NearshoreError], Awaitable[None]], ended: asyncio.Event
) -> Store | None:
    """Open the store, again and again while it cannot be reached; None when `ended` is set meanwhile.

    serve: called at the first failure, to let the process say that it lives and waits. Raises what open_once does but
    StoreUnavailableError.
    """
    served, pause_s = False, FIRST_RETRY_S
    while not ended.is_set():
        try:
            return await open_once()
        except StoreUnavailableError as error:
            if not served:
                await serve(error)
                served = True
            log.warning(
                "PostgreSQL cannot be reached yet", detail=error.message, next_try_s=pause_s, remedy=error.remedy
            )
            await happens(ended, pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)
    return None


async def happens(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for it, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
