"""What every call has: a request id, a line in the access log, and errors that say what to do."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio

from nearshore.documents.errors import AnswerTooLargeError
from nearshore.documents.store_threads import let_claim
from nearshore.errors import NearshoreError, ServiceError
from nearshore.metrics import CallMeter, Metrics
from nearshore.service.admission import Admission
from nearshore.service.decoding import Received, receiver
from nearshore.service.status import bug_status, status_of
from nearshore.service.streams import Stream
from nearshore.v1.embedding_service_pb2 import EmbedStreamRequest, EmbedStreamResponse
from nearshore.wire import DETAILS_KEY, LOGGED_REQUEST_ID, REQUEST_ID_KEY

SLOW_S = 1.0
PACKAGE = "nearshore.v1."
REPORT = "Report it with this traceback; the caller got INTERNAL and the request id."
# Ids we make: unlike those of any other process by the first part, of any other call by the second.
_PROCESS = uuid.uuid4().hex[:20]
_CALL_NUMBERS = itertools.count(1)

Context = aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Any], Awaitable[Message]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Guards:
    """What every call of a process goes through."""

    admission: Admission
    metrics: Metrics  # calls are counted in these
    max_message_bytes: int  # of the largest answer that gRPC would send
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # streams are read no further


class Outcome(NamedTuple):
    """What became of a call."""

    code: StatusCode
    status: Status | None  # None: it went well
    answer: bytes


class GuardedServer:
    """Stands in for a server where generated code registers a service, so that each of its methods is wrapped.

    Once, at registration: gRPC would ask an interceptor anew at every call, for some 60 µs.
    """

    def __init__(self, server: aio.Server, guards: Guards, refusal: NearshoreError | None = None) -> None:
        """refusal: with which every call fails, for a server that cannot do anything yet."""
        self._server = server
        self._guards = guards
        self._refusal = refusal
        self._log = log.bind()  # made once: the lazy one is put together anew for every line

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code gives the same methods to add_registered_method_handlers as well."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Register a service of nearshore.v1: each method takes one message and answers one, or EmbedStream's."""
        wrapped = {name: self._wrapped(f"{service}/{name}", handler) for name, handler in handlers.items()}
        generic = grpc.method_handlers_generic_handler(service, wrapped)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrapped(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        receive, name = receiver(handler.request_deserializer), method.removeprefix(PACKAGE)
        if handler.request_streaming:
            streamed: Any = self._guard_stream(name, handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(streamed, request_deserializer=receive)
        behaviour = handler.unary_unary if self._refusal is None else _refusing(self._refusal)
        guarded: Any = self._guard(name, behaviour)
        return grpc.unary_unary_rpc_method_handler(guarded, request_deserializer=receive)

    def _guard(self, method: str, behaviour: Behaviour) -> Callable[[Received, Context], Awaitable[bytes]]:
        meter = self._guards.metrics.calls(method)

        async def guarded(received: Received, context: Context) -> bytes:
            request_id = _request_id(context)
            structlog.contextvars.bind_contextvars(request_id=request_id)
            outcome = await self._outcome(method, meter, received, behaviour, context, request_id)
            if outcome.status is not None:
                await context.abort(outcome.code, outcome.status.message, _trailing(request_id, outcome.status))
            context.set_trailing_metadata(_trailing(request_id, None))
            return outcome.answer

        return guarded

    def _guard_stream(self, method: str, behaviour: Behaviour) -> Callable[[Any, Context], Awaitable[None]]:
        """behaviour: answers one of its requests; each is a call by itself, and its failure an answer."""
        meter = self._guards.metrics.calls(method)

        async def guarded(_: object, context: Context) -> None:
            request_id = _request_id(context)
            structlog.contextvars.bind_contextvars(request_id=request_id)

            async def answer(request: EmbedStreamRequest, size_bytes: int) -> bytes:
                received = Received(request, size_bytes)
                outcome = await self._outcome(method, meter, received, behaviour, context, request_id)
                if outcome.status is None:
                    return outcome.answer
                return EmbedStreamResponse(id=request.id, error=outcome.status).SerializeToString()

            try:
                await self._serve(Stream(context, answer, self._guards.stopping))
            except NearshoreError as error:
                (code, status), reason = status_of(error, request_id), error.reason
            except Exception:
                log.exception("A stream failed by a bug", method=method, remedy=REPORT)
                (code, status), reason = bug_status(request_id), NearshoreError.reason
            else:
                context.set_trailing_metadata(_trailing(request_id, None))
                return
            meter.answered(code.name, 0.0)  # nobody waited for the end of a stream
            self._log_access(method, None, code, reason, 0.0)
            with suppress(aio.InternalError):  # the caller is gone, and gRPC ends the call by itself
                await context.abort(code, status.message, _trailing(request_id, status))

        return guarded

    async def _serve(self, stream: Stream) -> None:
        with self._guards.admission.admit_stream():
            if self._refusal is not None:
                raise self._refusal.with_traceback(None)  # else that would grow with every call
            await stream.serve()

    async def _outcome(
        self,
        method: str,
        meter: CallMeter,
        received: Received,
        behaviour: Behaviour,
        context: Context,
        request_id: str,
    ) -> Outcome:
        """Admit, answer, count and log one call."""
        started = time.perf_counter()
        code, reason, status, answer = StatusCode.CANCELLED, "", None, b""
        try:
            with self._guards.admission.admit(received.size_bytes) as claim_store:
                let_claim(claim_store)
                answer = self._serialize(await behaviour(received.message(), context))
            code = StatusCode.OK
        except (asyncio.CancelledError, aio.AbortError):
            raise
        except NearshoreError as error:
            code, status = status_of(error, request_id)
            reason = error.reason
            if isinstance(error, ServiceError):  # the caller is told, but only the operator can mend it
                log.warning(error.message, remedy=error.remedy, reason=reason, method=method)
        except Exception:
            log.exception("A call failed by a bug", method=method, remedy=REPORT)
            code, status = bug_status(request_id)
            reason = NearshoreError.reason
        finally:
            seconds = time.perf_counter() - started
            meter.answered(code.name, seconds)
            self._log_access(method, received.request, code, reason, seconds)
        return Outcome(code, status, answer)

    def _log_access(self, method: str, request: Message | None, code: StatusCode, reason: str, seconds: float) -> None:
        level = logging.INFO if code is not StatusCode.OK or seconds >= SLOW_S else logging.DEBUG
        if self._log.is_enabled_for(level):
            collection, milliseconds = _collection(request), round(1e3 * seconds, 3)
            self._log.log(
                level, "Answered", method=method, code=code.name, reason=reason, collection=collection, ms=milliseconds
            )

    def _serialize(self, answer: Message) -> bytes:
        """Here, not in gRPC, so that an answer that cannot be sent is an error like any other."""
        data = answer.SerializeToString()
        limit = self._guards.max_message_bytes
        if len(data) > limit:
            raise AnswerTooLargeError(
                f"The answer has {len(data)} bytes, more than server.max_message_bytes ({limit}).",
                "Ask for less in one call: a lower limit, fewer queries, or no text and vectors in `parts`. "
                "If the call was a write, it has happened.",
                size_bytes=len(data),
                max_message_bytes=limit,
            )
        return data


def _refusing(error: NearshoreError) -> Behaviour:
    async def refuse(request: Any, context: Any) -> Message:
        del request, context
        raise error.with_traceback(None)  # else that would grow with every call

    return refuse


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and LOGGED_REQUEST_ID.fullmatch(value):
            return value
    return f"{_PROCESS}-{next(_CALL_NUMBERS):x}"


def _trailing(request_id: str, status: Status | None) -> tuple[tuple[str, str | bytes], ...]:
    if status is None:
        return ((REQUEST_ID_KEY, request_id),)
    return ((REQUEST_ID_KEY, request_id), (DETAILS_KEY, status.SerializeToString()))


def _collection(request: Message | None) -> str:
    """The collection that a request names, whatever it calls the field."""
    for name in ("collection_id", "collection", "name"):
        value = getattr(request, name, None)
        if isinstance(value, str):
            return value[:100]
    return ""
