"""The gRPC server: where it listens, how large a message may be, and which services it has."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from nearshore.documents.collections import Collections
from nearshore.documents.documents import Documents
from nearshore.documents.models import Models
from nearshore.documents.texts import Texts
from nearshore.errors import AddressUnusableError, NearshoreError, PortInUseError
from nearshore.search.searcher import Searcher
from nearshore.service.calls import GuardedServer, Guards
from nearshore.service.decoding import DecodingServer
from nearshore.service.health import Health
from nearshore.service.servicers import CollectionServicer, DocumentServicer, EmbeddingServicer, SearchServicer
from nearshore.service.translator import Translator
from nearshore.v1 import collection_service_pb2, document_service_pb2, embedding_service_pb2, search_service_pb2
from nearshore.v1.collection_service_pb2_grpc import CollectionServiceServicer, add_CollectionServiceServicer_to_server
from nearshore.v1.document_service_pb2_grpc import DocumentServiceServicer, add_DocumentServiceServicer_to_server
from nearshore.v1.embedding_service_pb2_grpc import EmbeddingServiceServicer, add_EmbeddingServiceServicer_to_server
from nearshore.v1.search_service_pb2_grpc import SearchServiceServicer, add_SearchServiceServicer_to_server

SERVICE_NAMES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (embedding_service_pb2, "EmbeddingService"),
        (collection_service_pb2, "CollectionService"),
        (document_service_pb2, "DocumentService"),
        (search_service_pb2, "SearchService"),
    )
)
LEAST_PING_INTERVAL_MS = 5_000  # the shipped client pings every ten seconds
KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What answers the calls."""

    texts: Texts
    models: Models
    collections: Collections
    documents: Documents
    searcher: Searcher
    work: Executor  # beside the event loop, for everything but searches
    searches: Executor


def bind(
    host: str,
    port: int,
    *,
    max_message_bytes: int,
    max_connection_age_s: float = 0.0,
    max_connection_age_grace_s: float = 600.0,
) -> tuple[aio.Server, int]:
    """A server that holds its port (0: a free one) and answers nothing yet; also the port.

    max_message_bytes: of a request or an answer. max_connection_age_s: after about so long (gRPC varies it by a tenth)
    a client is asked to connect anew, and so looks its name up and finds new replicas; 0: never. Its calls in flight
    go on over the old connection, for max_connection_age_grace_s at most.

    Raises PortInUseError, AddressUnusableError.
    """
    options = [
        # Two servers on one port would each get a part of the calls, and neither would say so.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Notice callers that vanished, and let callers notice us.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),  # else a minute
        ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_INTERVAL_MS),  # else five minutes
    ]
    if max_connection_age_s:
        options += [
            ("grpc.max_connection_age_ms", round(1e3 * max_connection_age_s)),
            ("grpc.max_connection_age_grace_ms", round(1e3 * max_connection_age_grace_s)),
        ]
    server = aio.server(options=options)
    address = address_of(host, port)
    _probe(host, port)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortInUseError(address) from error
    if bound == 0:
        raise PortInUseError(address)
    return server, bound


def _probe(host: str, port: int) -> None:
    """See that a socket can have the address: gRPC does not tell why it cannot. Raises as bind()."""
    address = address_of(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that no name can have
        raise AddressUnusableError(address, getattr(error, "strerror", None) or str(error)) from error
    problem: OSError | None = None
    usable = False
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC: closed connections do not count
                probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUseError(address) from error
            problem = error
        else:
            usable = True
    if not usable:  # gRPC is content with one of several
        raise AddressUnusableError(address, (problem and problem.strerror) or "no address") from problem


def add_services(server: aio.Server, parts: Parts, health: Health, guards: Guards) -> None:
    """Register the four services, guarded and counted, beside health and reflection."""
    guarded: Any = GuardedServer(server, guards)
    work, searches = Translator(parts.work), Translator(parts.searches)
    add_EmbeddingServiceServicer_to_server(EmbeddingServicer(parts.texts, parts.models, work), guarded)
    add_CollectionServiceServicer_to_server(CollectionServicer(parts.collections), guarded)
    add_DocumentServiceServicer_to_server(DocumentServicer(parts.documents, work), guarded)
    add_SearchServiceServicer_to_server(SearchServicer(parts.searcher, searches), guarded)
    _add_health(server, health)


def add_refusals(server: aio.Server, error: NearshoreError, health: Health, guards: Guards) -> None:
    """Register the same, but let the four services refuse every call with `error`."""
    refusing: Any = GuardedServer(server, guards, error)
    services: Sequence[tuple[Callable[[Any, Any], None], Any]] = (
        (add_EmbeddingServiceServicer_to_server, EmbeddingServiceServicer),
        (add_CollectionServiceServicer_to_server, CollectionServiceServicer),
        (add_DocumentServiceServicer_to_server, DocumentServiceServicer),
        (add_SearchServiceServicer_to_server, SearchServiceServicer),
    )
    for add, unimplemented in services:
        add(unimplemented(), refusing)
    _add_health(server, health)


def _add_health(server: aio.Server, health: Health) -> None:
    decoding = DecodingServer(server)
    health_pb2_grpc.add_HealthServicer_to_server(health, decoding)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    names = (*SERVICE_NAMES, health_name, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), decoding)


def address_of(host: str, port: int) -> str:
    """Join host and port; an IPv6 host goes into brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_address(host: str, port: int) -> str:
    """Where a process on this machine reaches a server that listens on `host`, which may mean every address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return address_of(host, port)
    if not address.is_unspecified:
        return address_of(host, port)
    return address_of("127.0.0.1" if address.version == 4 else "::1", port)
