"""How far a stream is read, with a caller that the test makes slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from grpc import aio

from nearshore.service.decoding import Received
from nearshore.service.streams import MAX_BATCHES, MAX_BYTES, MAX_TEXTS, ServerStoppingError, Stream, StreamBrokenError
from nearshore.v1.embedding_service_pb2 import EmbedRequest, EmbedStreamRequest

PATIENCE_S = 20.0


class Caller:
    """A call's context: it sends requests of one kind, and takes answers only once it reads."""

    def __init__(self, texts: int, size_bytes: int, requests: int = 100) -> None:
        self.reads = asyncio.Event()
        self.left = requests
        self.taken = 0
        self.answers: list[bytes] = []
        self._received = Received(EmbedStreamRequest(batch=EmbedRequest(texts=["a"] * texts)), size_bytes)

    async def read(self) -> Any:
        if not self.left:
            return aio.EOF
        self.left -= 1
        self.taken += 1
        return self._received

    async def write(self, answer: bytes) -> None:
        await self.reads.wait()
        self.answers.append(answer)


async def settled() -> None:
    """Until nothing goes on by itself any more; every step takes a few turns of the loop."""
    for _ in range(2_000):
        await asyncio.sleep(0)


def stream(caller: Any, stopping: asyncio.Event | None = None) -> Stream:
    async def answer(request: EmbedStreamRequest, size_bytes: int) -> bytes:
        return b"done"

    return Stream(caller, answer, stopping or asyncio.Event())


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test()

    asyncio.run(limited())


@pytest.mark.parametrize(
    ("texts", "size_bytes", "taken"),
    [
        (1, 10, MAX_BATCHES),
        (0, 2, MAX_BATCHES),
        (MAX_TEXTS // 2, 10, 2),
        (MAX_TEXTS * 3, 10, 1),
        (1, MAX_BYTES // 3, 4),
        (1, MAX_BYTES * 50, 1),
    ],
)
def test_a_stream_is_read_as_far_as_answers_are_taken(texts: int, size_bytes: int, taken: int) -> None:
    """Until then MAX_BATCHES, MAX_TEXTS or MAX_BYTES bound what is read, one batch aside; then all is answered."""

    async def test() -> None:
        caller = Caller(texts, size_bytes)
        serving = asyncio.ensure_future(stream(caller).serve())
        await settled()
        assert (caller.taken, caller.answers) == (taken, [])
        caller.reads.set()
        await serving
        assert len(caller.answers) == 100

    run(test)


def test_a_stop_ends_a_stream_once_its_answers_are_taken() -> None:
    """Nothing is read after it, whether the stream waited for room or for the caller."""

    async def test() -> None:
        caller, stopping = Caller(1, 10), asyncio.Event()
        serving = asyncio.ensure_future(stream(caller, stopping).serve())
        await settled()
        stopping.set()
        await settled()
        assert not serving.done()
        caller.reads.set()
        with pytest.raises(ServerStoppingError):
            await serving
        assert caller.taken == len(caller.answers) == MAX_BATCHES

    run(test)


def test_a_caller_that_leaves_takes_its_batches_along() -> None:
    """Cancelling a stream cancels the work on what was taken."""

    async def test() -> None:
        caller, cancelled = Caller(1, 10), []

        async def hang(request: EmbedStreamRequest, size_bytes: int) -> bytes:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(request)
            return b""

        context: Any = caller
        serving = asyncio.ensure_future(Stream(context, hang, asyncio.Event()).serve())
        await settled()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert len(cancelled) == MAX_BATCHES

    run(test)


def test_an_answer_that_cannot_be_written_breaks_the_stream() -> None:
    """It ends with one error that has a reason, however many answers failed, and the other work is cancelled."""

    async def test() -> None:
        caller, worked = Caller(1, 10), []

        async def fail(answer: bytes) -> None:
            raise aio.InternalError("the transport is closed")

        async def answer_some(request: EmbedStreamRequest, size_bytes: int) -> bytes:
            worked.append(request)
            if len(worked) > MAX_BATCHES // 2:
                await asyncio.Event().wait()
            return b""

        context: Any = caller
        context.write = fail
        with pytest.raises(StreamBrokenError, match="the transport is closed"):
            await Stream(context, answer_some, asyncio.Event()).serve()

    run(test)
