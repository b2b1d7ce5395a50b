"""A stream of batches as both clients send and read it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.message import Message
from grpc import StatusCode

from nearshore.client import decode
from nearshore.client.arguments import check_ordered, instance, timeout
from nearshore.client.codec import Call
from nearshore.client.failures import failure_of
from nearshore.client.messages import Embedded, EmbeddedBatch
from nearshore.client.retries import LONGEST_S
from nearshore.errors import NearshoreError, UnavailableError
from nearshore.v1.embedding_service_pb2 import EmbedStreamRequest, EmbedStreamResponse
from nearshore.wire import DETAILS_KEY

METHOD = "EmbeddingService.EmbedStream"
# What grpc.aio puts in place of the status of a call that ended while a message was being sent.
_WRITE_FAILED = "Internal error from Core"
_CODES = {code.value[0]: code for code in StatusCode}


class StreamLostError(UnavailableError):
    """A stream ended while a batch was on its way, and gRPC kept the reason to itself."""

    reason = "STREAM_LOST"

    def __init__(self, target: str) -> None:
        """target: as it was given."""
        super().__init__(
            f"{target} ended the stream while a batch was being sent; gRPC for asyncio does not tell why.",
            "Send the batches without an outcome in a new stream. If that ends too, the server's log has the reason.",
            target=target,
        )


class Requests:
    """The requests of one stream, made of the caller's batches as gRPC asks for them; numbered from 0.

    gRPC only logs what an iterator of its raises, and says UNKNOWN. So that is kept for check(), and the requests end.
    """

    def __init__(self, call_of: Callable[[Sequence[str], str], Call[Embedded]]) -> None:
        """call_of: what one batch asks for, given where it stands in the call.

        Raises what that raises for options that no request can hold: they are of no batch.
        """
        call_of((), "")
        self._call_of = call_of
        self._number = 0
        self._error: Exception | None = None

    def of(self, batches: Iterable[Sequence[str]]) -> Iterator[Message]:
        """Those of batches that are given one by one."""
        try:
            for batch in batches:
                yield self._next(batch)
        except Exception as error:
            self._error = error

    async def of_any(self, batches: Iterable[Sequence[str]] | AsyncIterable[Sequence[str]]) -> AsyncIterator[Message]:
        """The same, for batches that may have to be awaited."""
        try:
            if isinstance(batches, AsyncIterable):
                async for batch in batches:
                    yield self._next(batch)
            else:
                for batch in batches:
                    yield self._next(batch)
        except Exception as error:
            self._error = error

    def check(self) -> None:
        """Raise what the caller's batches raised."""
        if self._error is not None:
            raise self._error

    def _next(self, batch: Sequence[str]) -> Message:
        call = self._call_of(batch, f"batches[{self._number}].")
        request = EmbedStreamRequest(id=self._number, batch=call.request)
        self._number += 1
        return request


def checked(batches: object, *kinds: type) -> None:
    """Raise TypeError for what gives no batches, above all for one text."""
    if isinstance(batches, str | bytes):
        raise TypeError(
            f"batches is one {type(batches).__name__}; it takes lists of texts: batches=[[{batches!r:.80}]]."
        )
    check_ordered("batches", batches, "lists of texts")
    instance("batches", batches, *kinds)


def limit_s(timeout_s: float | None) -> float | None:
    """The argument timeout_s of a stream as gRPC takes it; None for no limit. Raises TypeError, ValueError."""
    if timeout_s is None:
        return None
    limit = timeout(timeout_s)
    return limit if limit <= LONGEST_S else None


def ending(code: StatusCode, details: str | None, trailing: Iterable[Any] | None, target: str) -> NearshoreError:
    """What ended a stream; the arguments are those of failure_of()."""
    if code is StatusCode.INTERNAL and details == _WRITE_FAILED:
        return StreamLostError(target)
    return failure_of(code, details, trailing, target).error


def outcome(message: EmbedStreamResponse, target: str) -> EmbeddedBatch:
    """What became of one batch; target: as it was given, for messages."""
    if message.WhichOneof("outcome") == "answer":
        return EmbeddedBatch(message.id, decode.embedded(message.answer), None)
    status = message.error
    code = _CODES.get(status.code, StatusCode.UNKNOWN)
    failure = failure_of(code, status.message, ((DETAILS_KEY, status.SerializeToString()),), target)
    return EmbeddedBatch(message.id, None, failure.error)
