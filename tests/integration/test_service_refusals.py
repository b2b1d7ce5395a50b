"""Bad input over a real connection: what code, reason and message it gets, and that the server lives on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from nearshore.client import channels
from nearshore.v1.collection_service_pb2 import Collection, CreateCollectionRequest, GetCollectionRequest
from nearshore.v1.document_service_pb2 import (
    CountDocumentsRequest,
    DeleteDocumentsRequest,
    Document,
    GetDocumentsRequest,
    ListDocumentsRequest,
    UpsertDocumentsRequest,
)
from nearshore.v1.embedding_service_pb2 import EmbedRequest
from nearshore.v1.search_service_pb2 import SearchRequest
from nearshore.v1.values_pb2 import TRUNCATION_REFUSE, Value, ValueList, Vectors
from tests.servers import InProcessServer, make_settings

TEXTS, VECTORS = "collections/texts", "collections/vectors"
MAX_MESSAGE_BYTES = 1 << 20
INVALID = StatusCode.INVALID_ARGUMENT


@dataclass(frozen=True)
class Case:
    name: str
    method: str
    request: Callable[[], Any]
    code: StatusCode
    reason: str
    says: str  # part of the message


def upsert(**fields: Any) -> Callable[[], UpsertDocumentsRequest]:
    """An upsert of one good document, but for `fields` of it."""
    return lambda: UpsertDocumentsRequest(
        collection=TEXTS, documents=[Document(**{"id": "1", "text": "cat", **fields})]
    )


def upsert_vectors(*components: float, dimensions: int = 3, data: bytes | None = None) -> Any:
    """An upsert of one document with a vector of its own."""
    return lambda: UpsertDocumentsRequest(
        collection=VECTORS,
        documents=[Document(id="1")],
        vectors=Vectors(
            data=np.array(components, "<f4").tobytes() if data is None else data, rows=1, dimensions=dimensions
        ),
    )


def search(**fields: Any) -> Callable[[], SearchRequest]:
    """A good search, but for `fields`."""
    return lambda: SearchRequest(**{"collection": TEXTS, "text": "cat", **fields})


def value(**fields: Any) -> dict[str, Value]:
    """Metadata with one value."""
    return {"key": Value(**fields)}


UPSERT, SEARCH, CREATE = "DocumentService.UpsertDocuments", "SearchService.Search", "CollectionService.CreateCollection"
EMBED, DELETE = "EmbeddingService.Embed", "DocumentService.DeleteDocuments"
NESTED = ValueList(values=[Value(list_value=ValueList())])
MIXED = ValueList(values=[Value(int64_value=1), Value(string_value="1")])
CASES = [
    Case("empty text", UPSERT, upsert(text=" "), INVALID, "EMPTY_TEXT", "documents[0].text"),
    Case("empty query", SEARCH, search(text=""), INVALID, "EMPTY_TEXT", "text is empty"),
    Case("no query", SEARCH, lambda: SearchRequest(collection=TEXTS), INVALID, "QUERY_REQUIRED", "query"),
    Case(
        "long text",
        EMBED,
        lambda: EmbedRequest(texts=["a", "cat " * 99], truncation=TRUNCATION_REFUSE),
        INVALID,
        "TEXT_TOO_LONG",
        "101 tokens",
    ),
    Case("NUL in text", UPSERT, upsert(text="a\0b"), INVALID, "NUL_IN_TEXT", "documents[0].text"),
    Case("empty id", UPSERT, upsert(id=""), INVALID, "INVALID_ID", "documents[0].id"),
    Case("NUL in id", UPSERT, upsert(id="a\0b"), INVALID, "INVALID_ID", "documents[0].id"),
    Case("id of 10 kB", UPSERT, upsert(id="x" * 10_000), INVALID, "INVALID_ID", "10,000 bytes"),
    Case("huge text", UPSERT, upsert(text="x" * 9_000), INVALID, "TEXT_TOO_LARGE", "9,000 bytes"),
    Case("deep metadata", UPSERT, upsert(metadata=value(list_value=NESTED)), INVALID, "METADATA_TOO_DEEP", "key"),
    Case("mixed list", UPSERT, upsert(metadata=value(list_value=MIXED)), INVALID, "INVALID_METADATA", "key"),
    Case("no kind", UPSERT, upsert(metadata=value()), INVALID, "INVALID_METADATA", "key"),
    Case("NaN metadata", UPSERT, upsert(metadata=value(double_value=np.nan)), INVALID, "INVALID_METADATA", "key"),
    Case(
        "nanoseconds",
        UPSERT,
        upsert(metadata=value(timestamp_value=Timestamp(nanos=1))),
        INVALID,
        "INVALID_METADATA",
        "key",
    ),
    Case(
        "large metadata", UPSERT, upsert(metadata=value(string_value="x" * 70_000)), INVALID, "METADATA_TOO_LARGE", ""
    ),
    Case(
        "duplicate ids",
        UPSERT,
        lambda: UpsertDocumentsRequest(collection=TEXTS, documents=[Document(id="1", text="a")] * 2),
        INVALID,
        "DUPLICATE_ID",
        "same id",
    ),
    Case(
        "no documents",
        UPSERT,
        lambda: UpsertDocumentsRequest(collection=TEXTS),
        INVALID,
        "BATCH_SIZE_OUT_OF_RANGE",
        "documents",
    ),
    Case("narrow vector", UPSERT, upsert_vectors(1, 2, dimensions=2), INVALID, "VECTOR_WIDTH", "3"),
    Case("missing bytes", UPSERT, upsert_vectors(data=b"1234"), INVALID, "VECTOR_BYTES", "4 bytes"),
    Case("NaN vector", UPSERT, upsert_vectors(1, 2, np.nan), INVALID, "VECTOR_NOT_FINITE", ""),
    Case("infinite vector", UPSERT, upsert_vectors(1, 2, np.inf), INVALID, "VECTOR_NOT_FINITE", ""),
    Case("zero vector", UPSERT, upsert_vectors(0, 0, 0), INVALID, "ZERO_VECTOR", ""),
    Case(
        "no vectors",
        UPSERT,
        lambda: UpsertDocumentsRequest(collection=VECTORS, documents=[Document(id="1")]),
        INVALID,
        "VECTORS_REQUIRED",
        "",
    ),
    Case(
        "text without model",
        SEARCH,
        search(collection=VECTORS),
        StatusCode.FAILED_PRECONDITION,
        "NO_MODEL",
        "vectors",
    ),
    Case(
        "vectors of nobody",
        UPSERT,
        lambda: UpsertDocumentsRequest(
            collection=TEXTS,
            documents=[Document(id="1", text="a")],
            vectors=Vectors(data=b"\1" * 128, rows=1, dimensions=32),
        ),
        INVALID,
        "FINGERPRINT_REQUIRED",
        "",
    ),
    Case(
        "unknown collection",
        SEARCH,
        search(collection="collections/absent"),
        StatusCode.NOT_FOUND,
        "COLLECTION_NOT_FOUND",
        "'absent'",
    ),
    Case("bad name", SEARCH, search(collection="absent"), INVALID, "INVALID_NAME", "collections/"),
    Case(
        "taken name",
        CREATE,
        lambda: CreateCollectionRequest(collection_id="texts", collection=Collection(dimensions=3)),
        StatusCode.ALREADY_EXISTS,
        "COLLECTION_EXISTS",
        "'texts'",
    ),
    Case(
        "no dimensions",
        CREATE,
        lambda: CreateCollectionRequest(collection_id="other"),
        INVALID,
        "DIMENSIONS_OUT_OF_RANGE",
        "",
    ),
    Case(
        "unknown metric",
        CREATE,
        lambda: CreateCollectionRequest(
            collection_id="other",
            collection=Collection(dimensions=3, metric=99),  # type: ignore[arg-type]
        ),
        INVALID,
        "UNKNOWN_ENUM_VALUE",
        "metric",
    ),
    Case(
        "unknown model",
        EMBED,
        lambda: EmbedRequest(model="models/other", texts=["a"]),
        StatusCode.NOT_FOUND,
        "MODEL_NOT_SERVED",
        "'other'",
    ),
    Case("k of 0", SEARCH, search(limit=0), INVALID, "LIMIT_OUT_OF_RANGE", "limit"),
    Case("k of 10^9", SEARCH, search(limit=10**9), INVALID, "LIMIT_OUT_OF_RANGE", "limit"),
    Case("negative offset", SEARCH, search(offset=-1), INVALID, "LIMIT_OUT_OF_RANGE", "offset"),
    Case("bad filter", SEARCH, search(filter='a = "'), INVALID, "INVALID_FILTER", ""),
    Case("deep filter", SEARCH, search(filter="(" * 4_000), INVALID, "INVALID_FILTER", ""),
    Case("forged token", SEARCH, search(read_after=["x"]), INVALID, "INVALID_WRITE_TOKEN", "'x'"),
    Case(
        "forged page",
        "DocumentService.ListDocuments",
        lambda: ListDocumentsRequest(collection=TEXTS, page_token="x"),
        INVALID,
        "INVALID_PAGE_TOKEN",
        "",
    ),
    Case(
        "ids and filter",
        DELETE,
        lambda: DeleteDocumentsRequest(collection=TEXTS, ids=["1"], filter="a = 1"),
        INVALID,
        "IDS_OR_FILTER",
        "",
    ),
    Case(
        "empty batch of ids",
        "DocumentService.GetDocuments",
        lambda: GetDocumentsRequest(collection=TEXTS),
        INVALID,
        "BATCH_SIZE_OUT_OF_RANGE",
        "ids",
    ),
    Case("too many texts", EMBED, lambda: EmbedRequest(texts=["a"] * 9), INVALID, "BATCH_SIZE_OUT_OF_RANGE", "9"),
    Case(
        "a huge name",
        "CollectionService.GetCollection",
        lambda: GetCollectionRequest(name="ä" * 100_000),
        INVALID,
        "INVALID_NAME",
        "",
    ),
]


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory, model_dir: Any) -> Iterator[dict[str, Any]]:
    """The methods of a server with small limits and two collections."""
    settings = make_settings(
        tmp_path_factory.mktemp("refusals"),
        model_dir,
        limits__max_texts=8,
        limits__max_text_bytes=8_192,
        server__max_message_bytes=MAX_MESSAGE_BYTES,
    )
    server = InProcessServer(settings)
    with server.client() as client:
        client.create_collection("texts", model="tiny")
        client.create_collection("vectors", dimensions=3)
    with grpc.insecure_channel(server.address, channels.options(8 << 20)) as channel:
        yield channels.methods(channel)
    server.stop()


def refusal(call: Callable[[], object]) -> tuple[StatusCode, str, ErrorInfo | None]:
    """Code, message and, where there is one, the ErrorInfo of a call that fails."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    error: Any = failed.value
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    if details is None:
        return error.code(), error.details(), None
    info = ErrorInfo()
    status = Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    assert status.details[0].Unpack(info)
    return error.code(), error.details(), info


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(methods: dict[str, Any], case: Case) -> None:
    """Each gets its code, its reason and a message that names the fault and a way on, and the server lives."""
    code, message, info = refusal(lambda: methods[case.method](case.request()))
    assert info is not None
    assert (code, info.reason, info.domain) == (case.code, case.reason, "nearshore")
    assert case.says in message
    assert message.count(". ") >= 1, "no remedy"
    assert methods["DocumentService.CountDocuments"](CountDocumentsRequest(collection=TEXTS)).count == 0


def test_what_grpc_refuses_keeps_its_own_code(methods: dict[str, Any], collection_id: str) -> None:
    """Oversized messages and invalid UTF-8 never reach us, and harm nobody."""
    oversized = EmbedRequest(texts=["x" * (MAX_MESSAGE_BYTES + 1)])
    code, _, info = refusal(lambda: methods[EMBED](oversized))
    assert (code, info) == (StatusCode.RESOURCE_EXHAUSTED, None)
    assert methods[EMBED](EmbedRequest(texts=["a"])).vectors.rows == 1


def test_invalid_utf8_harms_nobody(server: InProcessServer) -> None:
    """GRPC cannot read such a request: it says so with a code of its own."""
    with grpc.insecure_channel(server.address) as channel:
        raw: Any = channel.unary_unary("/nearshore.v1.EmbeddingService/Embed")
        code, _, info = refusal(lambda: raw(b"\x12\x02\xff\xfe"))
        assert (code, info) == (StatusCode.UNKNOWN, None)
        assert raw(EmbedRequest(texts=["a"]).SerializeToString())


def test_an_answer_that_does_not_fit_is_refused(methods: dict[str, Any]) -> None:
    """The caller learns what to ask less of instead of seeing the connection fail."""
    for first in (0, 100):
        large = [Document(id=str(first + n), text="cat", title="x" * 8_000) for n in range(100)]
        written = methods[UPSERT](UpsertDocumentsRequest(collection=TEXTS, documents=large))
    request = SearchRequest(collection=TEXTS, text="cat", limit=200, read_after=[written.write_token])
    code, message, info = refusal(lambda: methods[SEARCH](request))
    assert info is not None
    assert (code, info.reason) == (INVALID, "ANSWER_TOO_LARGE")
    assert "fewer" in message
    methods[DELETE](DeleteDocumentsRequest(collection=TEXTS, filter="_id:*"))
