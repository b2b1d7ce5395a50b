"""One stream of batches: read no faster than its answers are taken, each batch worked on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from grpc import aio

from nearshore.errors import NearshoreError, UnavailableError
from nearshore.service.decoding import UndecodableRequestError
from nearshore.v1.embedding_service_pb2 import EmbedStreamRequest

# Of one stream, read and not yet answered; the API's documentation names them.
MAX_BATCHES = 8
MAX_TEXTS = 2_048
MAX_BYTES = 1 << 20

T = TypeVar("T")
Context = aio.ServicerContext[Any, Any]


class ServerStoppingError(UnavailableError):
    """The server stops, and what it took of a stream is answered."""

    reason = "SERVER_STOPPING"

    def __init__(self) -> None:
        """The same for every stream."""
        super().__init__(
            "The server is stopping; it has answered what it took of this stream.",
            "Send the batches that have no answer in a new stream: another process may be serving by now.",
        )


class StreamBrokenError(UnavailableError):
    """gRPC would not take an answer or read on: as a rule because the caller or its connection is gone."""

    reason = "STREAM_BROKEN"

    def __init__(self, detail: str) -> None:
        """detail: what gRPC said."""
        super().__init__(
            f"The stream broke: {detail}.",
            "Send the batches that have no answer in a new stream. If that breaks too, look at the network between.",
        )


class Stream:
    """Reads batches and writes their answers, as they are done, until the caller or the server ends it."""

    def __init__(
        self, context: Context, answer: Callable[[EmbedStreamRequest, int], Awaitable[bytes]], stopping: asyncio.Event
    ) -> None:
        """answer: makes the message that answers a batch of so many bytes, whatever happens, and raises nothing."""
        self._context = context
        self._answer = answer
        self._stopping = stopping
        self._batches = self._texts = self._bytes = 0  # not yet answered
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._writing = asyncio.Lock()  # gRPC takes one message at a time

    async def serve(self) -> None:
        """Answer all that is taken. Raises UndecodableRequestError and ServerStoppingError, after that.

        Raises StreamBrokenError at once, and drops what is being worked on. What it raises else is a bug.
        """
        stop = asyncio.ensure_future(self._stopping.wait())
        end: NearshoreError | None = None
        try:
            async with asyncio.TaskGroup() as batches:
                while end is None:
                    received = await self._next(stop)
                    if received is aio.EOF:
                        break
                    if received is None:
                        end = ServerStoppingError()
                    elif received.request is None:
                        end = UndecodableRequestError()
                    else:
                        self._count(received.request, received.size_bytes, 1)
                        batches.create_task(self._work(received.request, received.size_bytes))
        except* aio.UsageError:  # gRPC's word for a bug of ours; a server that is stopped it tells by another error
            raise
        except* aio.BaseError as broken:
            end = StreamBrokenError(str(_first(broken)) or "gRPC does not say why")
        finally:
            stop.cancel()
        if end is not None:
            raise end

    async def _next(self, stop: asyncio.Future[Any]) -> Any:
        """The next message, Received or EOF, once there is room for it; None: the server stops."""
        if await _unless(stop, self._has_room.wait()) is None:
            return None
        return await _unless(stop, self._context.read())

    async def _work(self, request: EmbedStreamRequest, size_bytes: int) -> None:
        try:
            answer = await self._answer(request, size_bytes)
            async with self._writing:
                await self._context.write(answer)
        finally:
            self._count(request, size_bytes, -1)

    def _count(self, request: EmbedStreamRequest, size_bytes: int, sign: int) -> None:
        self._batches += sign
        self._texts += sign * len(request.batch.texts)
        self._bytes += sign * size_bytes
        if self._batches < MAX_BATCHES and self._texts < MAX_TEXTS and self._bytes < MAX_BYTES:
            self._has_room.set()
        else:
            self._has_room.clear()


def _first(group: BaseExceptionGroup[aio.BaseError]) -> BaseException:
    """One of several errors: batches that are answered at once fail for the same reason."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _unless(stop: asyncio.Future[Any], awaited: Coroutine[Any, Any, T]) -> T | None:
    """What is awaited; None when `stop` comes first."""
    task = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
