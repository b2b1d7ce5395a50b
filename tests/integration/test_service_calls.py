"""Every call through a real server and a real stub, and what calls have in common."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from nearshore.client import AsyncClient, Client, Document, FewerReason, IndexKind, Metric, Parts, Query
from nearshore.errors import CollectionNotFoundError, InvalidMetadataError
from nearshore.records import MetadataValue
from nearshore.service.health import LIVENESS
from nearshore.service.server import SERVICE_NAMES
from nearshore.v1 import document_service_pb2, embedding_service_pb2
from nearshore.v1.document_service_pb2_grpc import DocumentServiceStub
from nearshore.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from tests.servers import InProcessServer

METADATA: dict[str, MetadataValue] = {
    "name": "ä",
    "count": 2**62 + 1,
    "share": 0.1,
    "good": True,
    "at": datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC),
    "before": datetime(1, 1, 1, tzinfo=UTC),
    "tags": ("x", "y"),
    "none": (),
}


@pytest.fixture
def channel(server: InProcessServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def test_a_collection_lives_and_dies(client: Client, collection_id: str) -> None:
    """Create, describe, list and delete agree with each other."""
    created = client.create_collection(collection_id, model="tiny", metric=Metric.DOT, index_kind=IndexKind.EXACT)
    assert (created.name, created.model, created.dimensions) == (collection_id, "tiny", 32)
    assert (created.metric, created.index_kind) == (Metric.DOT, IndexKind.EXACT)
    assert client.get_collection(collection_id).uid == created.uid
    assert collection_id in [each.name for each in client.list_collections()]
    client.delete_collection(collection_id)
    with pytest.raises(CollectionNotFoundError):
        client.get_collection(collection_id)


def test_a_document_comes_back_as_it_was_written(client: Client, collection_id: str) -> None:
    """Text, title, parent and every kind of metadata survive the way there and back."""
    client.create_collection(collection_id, model="tiny")
    document = Document("1", "red bird", title="birds", parent_id="book", metadata=METADATA)
    written = client.upsert(collection_id, [document])
    assert (written.embedded_count, written.truncated_indexes) == (1, ())
    found = client.get(collection_id, ["absent", "1"], parts=Parts(vector=True))
    assert found.documents == [document]
    assert found.missing_ids == ("absent",)
    assert found.vectors is not None
    np.testing.assert_array_equal(found.vectors, client.embed([document.embedded_text]).vectors)
    assert found.read_state.token == written.write_token


def test_a_search_finds_what_was_written(client: Client, collection_id: str) -> None:
    """Text, vector and document as query; filter, parts, and the reason for fewer hits."""
    client.create_collection(collection_id, model="tiny")
    words = ("red", "green", "blue", "cat")
    client.upsert(collection_id, [Document(word, word, metadata={"long": len(word) > 3}) for word in words])
    result = client.search(collection_id, "blue")
    assert result.hits[0].document.text == "blue"
    assert result.hits[0].score == pytest.approx(1.0, abs=1e-6)
    assert (len(result.hits), result.exact, result.fewer_reason) == (4, True, FewerReason.COLLECTION)
    embedded = client.embed(["cat"])
    queries = [
        Query(vector=embedded.vectors[0], fingerprint=embedded.fingerprint, limit=1, parts=Parts(vector=True)),
        Query(document_id="cat", limit=4),
        Query(text="cat", filter="long = true", parts=Parts(text=False, metadata=False)),
    ]
    by_vector, by_document, filtered = client.batch_search(collection_id, queries)
    assert by_vector.hits[0].document.id == "cat"
    assert by_vector.vectors is not None
    np.testing.assert_array_equal(by_vector.vectors, embedded.vectors)
    assert "cat" not in [hit.document.id for hit in by_document.hits]
    assert all(not hit.document.text and not hit.document.metadata for hit in filtered.hits)
    assert {hit.document.id for hit in filtered.hits} == {"green", "blue"}
    assert filtered.fewer_reason is FewerReason.FILTER


def test_documents_are_listed_counted_and_deleted(client: Client, collection_id: str) -> None:
    """Pages together are everything; a delete by filter takes exactly what matches."""
    client.create_collection(collection_id, model="tiny")
    client.upsert(collection_id, [Document(f"{n:02}", "a bird", metadata={"n": n}) for n in range(10)])
    first = client.list_documents(collection_id, page_size=6)
    second = client.list_documents(collection_id, page_size=6, page_token=first.next_page_token)
    assert [each.id for each in (*first.documents, *second.documents)] == [f"{n:02}" for n in range(10)]
    assert second.next_page_token == ""
    assert client.delete(collection_id, filter="n >= 5").deleted_count == 5
    assert client.delete(collection_id, ids=["00", "absent"]).deleted_count == 1
    assert client.count(collection_id) == 4
    assert client.count(collection_id, filter="n = 3") == 1


def test_vectors_of_the_callers_own(client: Client, collection_id: str) -> None:
    """A collection without a model keeps exactly the vectors it is given."""
    client.create_collection(collection_id, dimensions=3, metric=Metric.EUCLIDEAN)
    vectors = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
    client.upsert(collection_id, [Document("a", "x"), Document("b", "")], vectors=vectors)
    found = client.get(collection_id, ["a", "b"], parts=Parts(vector=True))
    assert found.vectors is not None
    np.testing.assert_array_equal(found.vectors, vectors)
    hit = client.search(collection_id, Query(vector=vectors[0], limit=1)).hits[0]
    assert (hit.document.id, hit.score) == ("a", 0.0)


def test_texts_become_tokens_and_vectors(client: Client) -> None:
    """Embed and Tokenize agree about the tokens, and special tokens are text unless asked otherwise."""
    texts = ["a cat", "", "[SEP]", "word " * 100]
    embedded = client.embed(texts)
    tokenized = client.tokenize(texts)
    assert embedded.vectors.shape == (4, 32)
    assert list(embedded.tokens) == [len(each.ids) for each in tokenized.texts]
    assert list(embedded.tokens_used) == [min(count, tokenized.max_tokens) for count in embedded.tokens]
    assert tokenized.texts[0].tokens == ("[CLS]", "a", "cat", "[SEP]")
    parsed = client.embed(["[SEP]"], special_tokens="parse")
    assert parsed.tokens[0] < embedded.tokens[2]
    assert parsed.fingerprint != embedded.fingerprint


def test_the_async_client_does_the_same(server: InProcessServer, collection_id: str) -> None:
    """Both clients share their codec; this one only awaits."""

    async def use() -> None:
        async with AsyncClient(server.address) as client:
            await client.wait_ready()
            await client.create_collection(collection_id, model="tiny")
            await client.upsert(collection_id, [Document("1", "a cat")])
            assert await client.count(collection_id) == 1
            assert (await client.search(collection_id, "a cat")).hits[0].document.id == "1"
            assert collection_id in [each.name for each in await client.list_collections()]
            with pytest.raises(CollectionNotFoundError):
                await client.get_collection("absent")

    asyncio.run(use())


def test_a_new_namesake_is_read_without_old_tokens(client: Client, collection_id: str) -> None:
    """The client forgets the write tokens of a collection that it deletes."""
    for text in ("first", "second"):
        client.create_collection(collection_id, model="tiny")
        client.upsert(collection_id, [Document("1", text)])
        assert client.get(collection_id, ["1"]).documents[0].text == text
        client.delete_collection(collection_id)


def test_a_client_refuses_metadata_without_a_type(client: Client) -> None:
    """What no Value can carry is refused before anything is sent."""
    values: list[Any] = [None, {}, 2**63, datetime(2024, 1, 1)]
    for value in values:
        with pytest.raises(InvalidMetadataError):
            client.upsert("any", [Document("1", "x", metadata={"key": value})])


def _trailing(call: Any) -> dict[str, Any]:
    return dict(call.trailing_metadata())


@pytest.mark.parametrize("sent", ["my-request", None, "x" * 200])
def test_every_call_has_a_request_id(channel: grpc.Channel, sent: str | None) -> None:
    """A usable one comes back; a missing or unusable one is replaced; failed calls have it too."""
    metadata = (("x-request-id", sent),) if sent else ()
    _, call = EmbeddingServiceStub(channel).Embed.with_call(
        embedding_service_pb2.EmbedRequest(texts=["x"]), metadata=metadata
    )
    answered = _trailing(call)["x-request-id"]
    with pytest.raises(grpc.RpcError) as failed:
        EmbeddingServiceStub(channel).Embed(embedding_service_pb2.EmbedRequest(), metadata=metadata)
    refused = _trailing(failed.value)["x-request-id"]
    if sent == "my-request":
        assert answered == refused == sent
    else:
        assert answered
        assert refused
        assert sent not in (answered, refused)
        assert answered != refused


def test_health_names_every_service(channel: grpc.Channel) -> None:
    """Check, List and Watch say SERVING for the server and each of its services, and NOT_FOUND for others."""
    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", *SERVICE_NAMES):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
    listed = stub.List(health_pb2.HealthListRequest()).statuses
    assert {name: status.status for name, status in listed.items()} == dict.fromkeys(
        ("", LIVENESS, *SERVICE_NAMES), serving
    )
    with pytest.raises(grpc.RpcError) as failed:
        stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    """Grpcurl works without the proto files."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(stub.ServerReflectionInfo(iter([request])))
    names = {each.name for each in answer.list_services_response.service}
    assert names >= {*SERVICE_NAMES, "grpc.health.v1.Health"}


def test_an_unset_metadata_value_reaches_validation(channel: grpc.Channel, client: Client, collection_id: str) -> None:
    """A Value without a kind is refused as such, not taken for an empty string."""
    client.create_collection(collection_id, model="tiny")
    document = document_service_pb2.Document(id="1", text="x")
    document.metadata["key"].SetInParent()
    request = document_service_pb2.UpsertDocumentsRequest(
        collection=f"collections/{collection_id}", documents=[document]
    )
    with pytest.raises(grpc.RpcError) as failed:
        DocumentServiceStub(channel).UpsertDocuments(request)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
