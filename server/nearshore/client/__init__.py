"""A small client: numpy in and out, errors by type, write tokens carried by itself."""

from nearshore.client.asynchronous import AsyncClient
from nearshore.client.failures import (
    ClientClosedError,
    MessageTooLargeError,
    NoAnswerError,
    ServerNotReadyError,
    ServerUnreachableError,
)
from nearshore.client.messages import (
    CollectionInfo,
    CollectionStatus,
    Deleted,
    Embedded,
    EmbeddedBatch,
    EmbedTruncation,
    Fetched,
    Hit,
    ModelInfo,
    Page,
    Parts,
    Query,
    RankedText,
    Reranked,
    SearchResult,
    SpecialTokens,
    Tokenized,
    TokenizedText,
    TokenVectors,
    Truncation,
    Upserted,
)
from nearshore.client.request_ids import logged_as
from nearshore.client.retries import NO_RETRIES, Retries
from nearshore.client.streams import StreamLostError
from nearshore.client.sync import Client
from nearshore.errors import InvalidAddressError
from nearshore.records import Document, FewerReason, IndexKind, Metric, ReadState

__all__ = [
    "NO_RETRIES",
    "AsyncClient",
    "Client",
    "ClientClosedError",
    "CollectionInfo",
    "CollectionStatus",
    "Deleted",
    "Document",
    "EmbedTruncation",
    "Embedded",
    "EmbeddedBatch",
    "Fetched",
    "FewerReason",
    "Hit",
    "IndexKind",
    "InvalidAddressError",
    "MessageTooLargeError",
    "Metric",
    "ModelInfo",
    "NoAnswerError",
    "Page",
    "Parts",
    "Query",
    "RankedText",
    "ReadState",
    "Reranked",
    "Retries",
    "SearchResult",
    "ServerNotReadyError",
    "ServerUnreachableError",
    "SpecialTokens",
    "StreamLostError",
    "TokenVectors",
    "Tokenized",
    "TokenizedText",
    "Truncation",
    "Upserted",
    "logged_as",
]
