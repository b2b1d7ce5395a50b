"""Requests whose bytes are not the message of their method: refused as any other bad request is.

An exception of a deserializer is, to gRPC, a bug of the server: it answers UNKNOWN and a Python class, and logs a
traceback for every such call, of which anybody can make as many as he likes. So none is raised there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from nearshore.errors import InvalidArgumentError
from nearshore.service.status import status_of
from nearshore.wire import DETAILS_KEY

Context = aio.ServicerContext[Any, Any]


class UndecodableRequestError(InvalidArgumentError):
    """The bytes of a request are not the message of its method, or text in it is not UTF-8."""

    reason = "UNDECODABLE_REQUEST"

    def __init__(self) -> None:
        """The same for every request: it says nothing that can be told of it."""
        super().__init__(
            "The bytes of the request are not the protobuf message that this method takes, or text in it is not UTF-8.",
            "Send that message with code generated from the proto of this server's version, such as the client of the "
            "same version.",
        )


class Received(NamedTuple):
    """A request and how large it was on the wire, which only its bytes tell without making them again."""

    request: Any  # the message; None: the bytes are not that
    size_bytes: int

    def message(self) -> Message:
        """The request. Raises UndecodableRequestError."""
        if self.request is None:
            raise UndecodableRequestError
        message: Message = self.request
        return message


def receiver(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Received]:
    """A deserializer that takes whatever comes."""
    decode = decoder(deserialize)
    return lambda data: Received(decode(data), len(data))


def decoder(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | None]:
    """A deserializer that gives None for what `deserialize` cannot read."""

    def decode(data: bytes) -> Message | None:
        try:
            return deserialize(data)
        except DecodeError:
            return None

    return decode


class DecodingServer:
    """Stands in for a server where a service of others is registered: whatever its methods are given is a message."""

    def __init__(self, server: aio.Server) -> None:
        """Register with `server`."""
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code gives the same methods to add_registered_method_handlers as well."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register a service whose methods take one message, or take and answer streams of them."""
        checked = {name: _checked(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, checked),))
        self._server.add_registered_method_handlers(service, checked)


def _checked(handler: Any) -> Any:
    async def one(request: Message | None, context: Context) -> Any:
        await _check(request, context)
        return await (handler.unary_unary or handler.unary_stream)(request, context)

    async def several(requests: AsyncIterator[Message | None], context: Context) -> AsyncIterator[Message]:
        async for answer in handler.stream_stream(_all_checked(requests, context), context):
            yield answer

    behaviour: dict[str, Any] = {"stream_stream": several}
    if not handler.request_streaming:
        behaviour = {"unary_stream": one} if handler.response_streaming else {"unary_unary": one}
    return handler._replace(request_deserializer=decoder(handler.request_deserializer), **behaviour)


async def _all_checked(requests: AsyncIterator[Message | None], context: Context) -> AsyncIterator[Message | None]:
    async for request in requests:
        await _check(request, context)
        yield request


async def _check(request: Message | None, context: Context) -> None:
    if request is None:
        code, status = status_of(UndecodableRequestError(), "")
        await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
