"""What both clients say to gRPC: channel options, methods by name, and when a server is ready."""

from __future__ import annotations

from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2

from nearshore.v1.collection_service_pb2_grpc import CollectionServiceStub
from nearshore.v1.document_service_pb2_grpc import DocumentServiceStub
from nearshore.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from nearshore.v1.search_service_pb2_grpc import SearchServiceStub

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_MAX_MESSAGE_BYTES = 64 << 20
STUBS = {
    "CollectionService": CollectionServiceStub,
    "DocumentService": DocumentServiceStub,
    "EmbeddingService": EmbeddingServiceStub,
    "SearchService": SearchServiceStub,
}


def options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Channel options: messages as large as the server's."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
    ]


def methods(channel: grpc.Channel | aio.Channel) -> dict[str, Any]:
    """The callables of every method by "Service.Method"."""
    found: dict[str, Any] = {}
    for service, stub_class in STUBS.items():
        stub: Any = stub_class(channel)
        found.update({f"{service}.{name}": method for name, method in vars(stub).items()})
    return found


def is_serving(response: Any) -> bool:
    """Whether a health answer says that the server takes calls."""
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
