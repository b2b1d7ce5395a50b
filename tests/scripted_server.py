"""A server that says what a test tells it to: over real gRPC, with nothing behind it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from nearshore.records import WriteToken
from nearshore.v1 import collection_service_pb2 as collections_pb
from nearshore.v1 import document_service_pb2 as documents_pb
from nearshore.v1 import search_service_pb2 as search_pb
from nearshore.wire import DETAILS_KEY, ERROR_DOMAIN, REQUEST_ID_KEY
from tests.ports import free_port

ANSWER_S = 30.0
TOKEN = WriteToken(1, 3, bytes(16)).encode()
ANSWERS = {
    "UpsertDocuments": documents_pb.UpsertDocumentsResponse(write_token=TOKEN),
    "DeleteDocuments": documents_pb.DeleteDocumentsResponse(write_token=TOKEN, deleted_count=1),
    "CountDocuments": documents_pb.CountDocumentsResponse(count=7),
    "CreateCollection": collections_pb.CreateCollectionResponse(
        collection=collections_pb.Collection(
            metric=collections_pb.METRIC_COSINE,
            index=collections_pb.IndexConfig(kind=collections_pb.INDEX_KIND_AUTO),
            status=collections_pb.CollectionStatus(),
        )
    ),
    "DeleteCollection": collections_pb.DeleteCollectionResponse(),
    "Search": search_pb.SearchResponse(fewer_reason=search_pb.FEWER_REASON_NONE),
}


class Refusal(NamedTuple):
    """What a server says instead of an answer."""

    code: StatusCode
    reason: str = ""  # empty: gRPC itself, or a proxy, speaks
    retry_after_s: float | None = None
    facts: Mapping[str, str] = MappingProxyType({})  # the metadata of its reason


class Received(NamedTuple):
    """One attempt as the server saw it."""

    method: str
    request: bytes
    request_id: str  # of the log
    at_s: float


class ScriptedServer(grpc.GenericRpcHandler):
    """Refuses as often as it is told to, then answers."""

    def __init__(self, *refusals: Refusal, port: int = 0, max_message_bytes: int = -1) -> None:
        self.refusals = deque(refusals)
        self.received: list[Received] = []
        self.asked = threading.Event()
        self.refused = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
        ]
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self], options=options)
        # Not one of the system's choice: that may be given to somebody else while this server is stopped.
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port or free_port()}")
        self.target = f"127.0.0.1:{self.port}"
        self._server.start()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Take every method."""
        method = handler_call_details.method.rpartition("/")[2]
        metadata = dict(handler_call_details.invocation_metadata)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            request_id = str(metadata.get(REQUEST_ID_KEY, ""))
            self.received.append(Received(method, request, request_id, time.monotonic()))
            self.asked.set()
            self.may_answer.wait(ANSWER_S)
            if self.refusals:
                refusal = self.refusals.popleft()
                self.refused.set()
                context.set_trailing_metadata(trailing(refusal))
                context.abort(refusal.code, "refused")
            return ANSWERS[method].SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)

    def stop(self) -> None:
        """End all connections."""
        self._server.stop(None).wait()


def trailing(refusal: Refusal) -> tuple[tuple[str, bytes], ...]:
    """What carries the reason."""
    if not refusal.reason:
        return ()
    details: list[Any] = [ErrorInfo(reason=refusal.reason, domain=ERROR_DOMAIN, metadata=refusal.facts)]
    if refusal.retry_after_s is not None:
        details.append(
            RetryInfo(
                retry_delay=Duration(
                    nanos=round(refusal.retry_after_s * 1e9) % 10**9, seconds=int(refusal.retry_after_s)
                )
            )
        )
    status = Status()
    for detail in details:
        packed = Packed()
        packed.Pack(detail)
        status.details.append(packed)
    return ((DETAILS_KEY, status.SerializeToString()),)
