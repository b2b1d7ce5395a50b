"""Where messages are translated: small ones at once, large ones in a thread, so that the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message

LARGE_BYTES = 256 << 10  # of a request: up to 20 ms of translating
LARGE_ITEMS = 256  # documents, hits or tokens of an answer: some milliseconds of building

Sent = TypeVar("Sent", bound=Message)
Made = TypeVar("Made")
Given = TypeVar("Given")


class Translator:
    """Turns requests into what the layers below take, and their answers into messages."""

    def __init__(self, executor: Executor) -> None:
        """Large messages go there."""
        self._executor = executor

    async def read(self, translate: Callable[[Sent], Made], request: Sent) -> Made:
        """What `translate` makes of a request. Raises what that raises."""
        if request.ByteSize() <= LARGE_BYTES:
            return translate(request)
        return await self._in_thread(partial(translate, request))

    async def build(self, build: Callable[[Given], Sent], answer: Given, *, items: int) -> Sent:
        """The message that `build` makes of an answer; items: how many things it makes one by one."""
        if items <= LARGE_ITEMS:
            return build(answer)
        return await self._in_thread(partial(build, answer))

    async def _in_thread(self, work: Callable[[], Made]) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._executor, copy_context().run, work)
