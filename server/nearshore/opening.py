"""Steps of a start that may take long, above all reaching a store that comes later than this process.

As PostgreSQL does in a cluster whose pods all start together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from nearshore.errors import NearshoreError
from nearshore.store.base import Store
from nearshore.store.errors import StoreUnavailableError

FIRST_RETRY_S, LAST_RETRY_S = 0.5, 5.0

log = structlog.get_logger(__name__)


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


async def outlasts(step: asyncio.Future[Any], event: asyncio.Event, patience_s: float) -> bool:
    """Wait for a step to be done; True: it still goes on so long after the event."""
    happened = asyncio.ensure_future(event.wait())
    await asyncio.wait((step, happened), return_when=asyncio.FIRST_COMPLETED)
    happened.cancel()
    await asyncio.wait((step,), timeout=patience_s)
    return not step.done()
