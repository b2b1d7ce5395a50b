"""The services that a gRPC server has."""

from __future__ import annotations

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
from nearshore.errors import NearshoreError
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
