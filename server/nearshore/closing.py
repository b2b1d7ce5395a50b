"""Closing the parts of a process: in their order, and within a time, whatever one of them waits for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

LIMIT_S = 12.0  # the chart leaves 15 s after draining and the grace of calls, then Kubernetes kills
NEXT_S = 2.0  # after which the next part is closed beside one that has not ended: that may be what it waits for


class Closing:
    """Parts that were opened. Each is closed in a thread of its own that no end of a process waits for."""

    def __init__(self, limit_s: float = LIMIT_S, next_s: float = NEXT_S) -> None:
        """limit_s: for all parts; next_s: for one until the next is begun with."""
        self._limit_s = limit_s
        self._next_s = next_s
        self._parts: list[tuple[str, Callable[[], object]]] = []
        self.hanging: list[str] = []
        """The parts that had not ended when the time was over."""

    def add(self, name: str, close: Callable[[], object]) -> None:
        """Have close() called before what was added earlier is closed; name is for people."""
        self._parts.append((name, close))

    async def close(self) -> None:
        """Close all, the last added first. `hanging` names those that hang; raises what closing one raised."""
        give_up_at = time.monotonic() + self._limit_s
        ends: dict[str, asyncio.Future[None]] = {}
        while self._parts:
            name, close = self._parts.pop()
            ends[name] = _begin(name, close)
            await asyncio.wait([ends[name]], timeout=min(self._next_s, max(0.0, give_up_at - time.monotonic())))
        if ends:
            await asyncio.wait(ends.values(), timeout=max(0.0, give_up_at - time.monotonic()))
        self.hanging = [name for name, end in ends.items() if not end.done()]
        for end in ends.values():
            if end.done():
                end.result()


def _begin(name: str, close: Callable[[], object]) -> asyncio.Future[None]:
    """Call close() in a daemon thread; the future, of the running loop, tells its end."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        error: BaseException | None = None
        try:
            close()
        except BaseException as raised:  # to whoever waits, in the other thread
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waited so long
            loop.call_soon_threadsafe(_settle, end, error)

    threading.Thread(target=run, name=f"close {name}", daemon=True).start()
    return end


def _settle(end: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        end.set_result(None)
    else:
        end.set_exception(error)
