"""Our words as messages of nearshore.v1 and back; the service and the client share it. It knows no gRPC.

Vectors travel as one bytes object, so no code here touches a single component. Messages are taken as they are: what a
request holds is judged by nearshore.documents and nearshore.search, not here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from nearshore.errors import InvalidMetadataError
from nearshore.records import F32, Document, IndexKind, MetadataValue, Metric, Scalar
from nearshore.v1 import collection_service_pb2, document_service_pb2, values_pb2

ERROR_DOMAIN = "nearshore"  # of every google.rpc.ErrorInfo
DETAILS_KEY = "grpc-status-details-bin"  # where gRPC carries a google.rpc.Status
REMEDY_KEY = "remedy"  # in the metadata of an ErrorInfo: how the message ends, which is what to do
REQUEST_ID_KEY = "x-request-id"  # where a call and its answer carry the id under which the server logs it
LOGGED_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INT64_LIMIT = 1 << 63

METRICS = {
    collection_service_pb2.METRIC_COSINE: Metric.COSINE,
    collection_service_pb2.METRIC_DOT: Metric.DOT,
    collection_service_pb2.METRIC_EUCLIDEAN: Metric.EUCLIDEAN,
}
INDEX_KINDS = {
    collection_service_pb2.INDEX_KIND_AUTO: IndexKind.AUTO,
    collection_service_pb2.INDEX_KIND_EXACT: IndexKind.EXACT,
    collection_service_pb2.INDEX_KIND_HNSW: IndexKind.HNSW,
}
_PLAIN_KINDS = ("string_value", "int64_value", "double_value", "bool_value")
METRIC_NUMBERS = {metric: number for number, metric in METRICS.items()}
INDEX_KIND_NUMBERS = {kind: number for number, kind in INDEX_KINDS.items()}


def timestamp(at: datetime) -> Timestamp:
    """An aware datetime as a protobuf timestamp, to the microsecond."""
    since = at - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def moment(stamp: Timestamp) -> datetime:
    """A protobuf timestamp as an aware datetime in UTC. Raises OverflowError for years outside 1 to 9999."""
    return EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1_000)


def vectors_message(vectors: F32, fingerprint: str = "") -> values_pb2.Vectors:
    """Pack an array (rows, dimensions); fingerprint says which model made it."""
    rows, dimensions = vectors.shape
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        data = np.ascontiguousarray(vectors, dtype="<f4").tobytes()
    return values_pb2.Vectors(data=data, rows=rows, dimensions=dimensions, fingerprint=fingerprint)


def vectors_array(message: values_pb2.Vectors) -> F32:
    """The message as (rows, dimensions) float32: a read-only view of its bytes. Raises ValueError if they disagree."""
    return np.frombuffer(message.data, dtype="<f4").reshape(message.rows, message.dimensions)


def metadata_value(message: values_pb2.Value) -> MetadataValue:
    """One metadata value; a list becomes a tuple. Raises ValueError for a value that no server stores."""
    kind = message.WhichOneof("kind")
    if kind == "list_value":
        return tuple(_scalar(value, value.WhichOneof("kind")) for value in message.list_value.values)
    return _scalar(message, kind)


def _scalar(message: values_pb2.Value, kind: str | None) -> Scalar:
    if kind in _PLAIN_KINDS:
        plain: Scalar = getattr(message, kind)
        return plain
    if kind == "timestamp_value":
        return moment(message.timestamp_value)
    raise ValueError(f"a scalar of kind {kind}")


def fill_value(message: values_pb2.Value, value: MetadataValue, key: str) -> None:
    """Put one metadata value into an empty message; key names it in errors.

    Raises InvalidMetadataError for what Value lacks.
    """
    if isinstance(value, tuple | list):
        message.list_value.SetInParent()  # it may be empty
        for element in value:
            _fill_scalar(message.list_value.values.add(), element, key)
    else:
        _fill_scalar(message, value, key)


def _fill_scalar(message: values_pb2.Value, value: Scalar, key: str) -> None:
    match value:
        case str():
            message.string_value = value
        case bool():
            message.bool_value = value
        case int() if -INT64_LIMIT <= value < INT64_LIMIT:
            message.int64_value = value
        case float():
            message.double_value = value
        case datetime() if value.tzinfo is not None:
            message.timestamp_value.CopyFrom(timestamp(value))
        case _:
            raise InvalidMetadataError(
                f"Metadata {key!r} is {value!r:.100}.",
                "Use str, int (64 bits), float, bool, a datetime with a time zone, or a list of one of these.",
                key=key,
            )


def document(message: document_service_pb2.Document) -> Document:
    """A document from the message of an answer."""
    metadata = {key: metadata_value(value) for key, value in message.metadata.items()}
    return Document(message.id, message.text, message.title, message.parent_id, metadata)


def document_message(source: Document) -> document_service_pb2.Document:
    """A document as a message. Raises InvalidMetadataError."""
    message = document_service_pb2.Document()
    fill_document(message, source)
    return message


def fill_document(message: document_service_pb2.Document, source: Document) -> None:
    """Put a document into an empty message, where it stands: nothing is copied. Raises InvalidMetadataError."""
    message.id = source.id
    message.text = source.text
    message.title = source.title
    message.parent_id = source.parent_id
    metadata = message.metadata
    for key, value in source.metadata.items():
        fill_value(metadata[key], value, key)
