"""What both clients say to gRPC: channel options, methods by name, and when a server is ready."""

from __future__ import annotations

import json
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2

from nearshore.client.arguments import size_bytes
from nearshore.v1.collection_service_pb2_grpc import CollectionServiceStub
from nearshore.v1.document_service_pb2_grpc import DocumentServiceStub
from nearshore.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from nearshore.v1.search_service_pb2_grpc import SearchServiceStub

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_MAX_MESSAGE_BYTES = 64 << 20
# Servers are asked in turn whether they are ready: a watch would stay with the one that it began with.
ASK_READY_S = 5.0  # for an answer, before the next one is asked
ASK_READY_PAUSE_S = 0.1
STUBS = {
    "CollectionService": CollectionServiceStub,
    "DocumentService": DocumentServiceStub,
    "EmbeddingService": EmbeddingServiceStub,
    "SearchService": SearchServiceStub,
}


# Calls go to all addresses of a name in turn.
SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
# Names are looked up again when a connection ends, which a server's max_connection_age sees to; but not more often.
LOOKUP_INTERVAL_MS = 2_000
FIRST_BACKOFF_MS, LAST_BACKOFF_MS = 100, 2_000  # between attempts to connect to one address
CONNECT_TIMEOUT_MS = 5_000
PING_INTERVAL_MS, PING_TIMEOUT_MS = 10_000, 5_000  # so a server that vanished is noticed within fifteen seconds


def options(max_message_bytes: int) -> list[tuple[str, int | str]]:
    """Channel options: balance, look names up, notice that a server is gone; messages as large as the server's.

    Raises TypeError, ValueError.
    """
    size_bytes("max_message_bytes", max_message_bytes)
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.service_config", SERVICE_CONFIG),
        ("grpc.dns_min_time_between_resolutions_ms", LOOKUP_INTERVAL_MS),
        ("grpc.initial_reconnect_backoff_ms", FIRST_BACKOFF_MS),
        ("grpc.max_reconnect_backoff_ms", LAST_BACKOFF_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),  # what the name does not say: how long one attempt takes
        ("grpc.keepalive_time_ms", PING_INTERVAL_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),  # else a minute, whatever the one above says
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # no limit: the server's is the one that counts
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
