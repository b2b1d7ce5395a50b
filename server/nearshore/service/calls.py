"""What every call has: a request id, a line in the access log, and errors that say what to do."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio

from nearshore.documents.errors import AnswerTooLargeError
from nearshore.errors import NearshoreError, ServiceError
from nearshore.service.admission import Admission
from nearshore.service.status import REQUEST_ID_KEY, bug_status, status_of
from nearshore.wire import DETAILS_KEY

SLOW_S = 1.0
SERVICES = "/nearshore.v1."
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
# Ids we make: unlike those of any other process by the first part, of any other call by the second.
_PROCESS = uuid.uuid4().hex[:20]
_CALL_NUMBERS = itertools.count(1)

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Any], Awaitable[Message]]

log = structlog.get_logger(__name__)


class Received(NamedTuple):
    """A request and how large it was on the wire, which only its bytes tell without making them again."""

    request: Message
    size_bytes: int


class CallInterceptor(aio.ServerInterceptor):
    """Wraps each method of nearshore.v1 once; health and reflection pass untouched."""

    def __init__(self, admission: Admission, *, max_message_bytes: int) -> None:
        """max_message_bytes: the largest answer that gRPC would send."""
        self._max_message_bytes = max_message_bytes
        self._admission = admission
        self._log = log.bind()  # made once: the lazy one is put together anew for every line
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Request, Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Request, Response] | None:
        """The handler of the method, wrapped; the kept one from its second call on."""
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or not method.startswith(SERVICES):
            return handler
        behaviour: Any = handler.unary_unary
        deserialize: Any = handler.request_deserializer
        guarded: Any = self._guard(method.removeprefix(SERVICES), behaviour)
        self._wrapped[method] = grpc.unary_unary_rpc_method_handler(
            guarded, request_deserializer=lambda data: Received(deserialize(data), len(data))
        )
        return self._wrapped[method]

    def _guard(self, method: str, behaviour: Behaviour) -> Callable[[Received, Context], Awaitable[bytes]]:
        async def guarded(received: Received, context: Context) -> bytes:
            request_id = _request_id(context)
            structlog.contextvars.bind_contextvars(request_id=request_id)
            started = time.perf_counter()
            code, reason = StatusCode.CANCELLED, ""
            try:
                with self._admission.admit(received.size_bytes):
                    answer = self._serialize(await behaviour(received.request, context))
                code = StatusCode.OK
            except (asyncio.CancelledError, aio.AbortError):
                raise
            except NearshoreError as error:
                code, status = status_of(error, request_id)
                reason = error.reason
                if isinstance(error, ServiceError):  # the caller is told, but only the operator can mend it
                    log.warning(error.message, remedy=error.remedy, reason=reason, method=method)
            except Exception:
                log.exception("A call failed by a bug", method=method)
                code, status = bug_status(request_id)
                reason = NearshoreError.reason
            finally:
                self._log_access(method, received.request, code, reason, time.perf_counter() - started)
            if code is not StatusCode.OK:
                await context.abort(code, status.message, _trailing(request_id, status))
            context.set_trailing_metadata(_trailing(request_id, None))
            return answer

        return guarded

    def _log_access(self, method: str, request: Message, code: StatusCode, reason: str, seconds: float) -> None:
        level = logging.INFO if code is not StatusCode.OK or seconds >= SLOW_S else logging.DEBUG
        if self._log.is_enabled_for(level):
            facts = {"method": method, "code": code.name, "reason": reason, "collection": _collection(request)}
            self._log.log(level, "Answered", **facts, ms=round(1e3 * seconds, 3))

    def _serialize(self, answer: Message) -> bytes:
        """Here, not in gRPC, so that an answer that cannot be sent is an error like any other."""
        data = answer.SerializeToString()
        if len(data) > self._max_message_bytes:
            raise AnswerTooLargeError(
                f"The answer has {len(data)} bytes, more than server.max_message_bytes ({self._max_message_bytes}).",
                "Ask for less in one call: a lower limit, fewer queries, or no text and vectors in `parts`.",
                size_bytes=len(data),
                max_message_bytes=self._max_message_bytes,
            )
        return data


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and REQUEST_ID.fullmatch(value):
            return value
    return f"{_PROCESS}-{next(_CALL_NUMBERS):x}"


def _trailing(request_id: str, status: Status | None) -> tuple[tuple[str, str | bytes], ...]:
    if status is None:
        return ((REQUEST_ID_KEY, request_id),)
    return ((REQUEST_ID_KEY, request_id), (DETAILS_KEY, status.SerializeToString()))


def _collection(request: Message) -> str:
    """The collection that a request names, whatever it calls the field."""
    for field in ("collection_id", "collection", "name"):
        value = getattr(request, field, None)
        if isinstance(value, str):
            return value[:100]
    return ""
