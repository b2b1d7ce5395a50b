"""Bad requests to a server in a process of its own, through stubs: each is refused as the table says, and life goes on.

test_bad_surroundings.py does the same for what surrounds a server: disks, files, settings, ports.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from nearshore.client import Client, channels
from nearshore.exit_codes import ExitCode
from nearshore.v1.document_service_pb2 import Document, UpsertDocumentsRequest
from tests.bad_requests import TABLE, Bad, World, batch, listing, search, upsert_vectors
from tests.servers import ServerProcess

MAX_MESSAGE_BYTES = 1 << 20
SETTINGS = {
    "NEARSHORE_EMBEDDING__MODEL": "tiny",
    "NEARSHORE_LIMITS__MAX_COLLECTIONS": "4",
    "NEARSHORE_LIMITS__MAX_DOCUMENTS": "8",
    "NEARSHORE_LIMITS__MAX_QUERIES": "4",
    "NEARSHORE_LIMITS__MAX_TEXTS": "8",
    "NEARSHORE_LIMITS__MAX_TEXT_BYTES": "8192",
    "NEARSHORE_SERVER__MAX_MESSAGE_BYTES": str(MAX_MESSAGE_BYTES),
    "NEARSHORE_SERVER__PORT": "0",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[str]:
    """A server with small limits. Whatever the tests sent, it ends in order and its log holds no error."""
    folders = {"NEARSHORE_DATA_DIR": str(tmp_path_factory.mktemp("data")), "NEARSHORE_MODEL_DIR": str(model_dir)}
    process = ServerProcess({**SETTINGS, **folders})
    try:
        yield process.address()
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == ExitCode.OK
    finally:
        process.kill()
    assert not [line for line in process.lines if '"error"' in line or "INTERNAL" in line or "Traceback" in line]


@pytest.fixture(scope="module")
def world(address: str) -> Iterator[World]:
    """As many collections as there may be, of which "texts" and "vectors" hold documents."""
    with Client(address) as client, grpc.insecure_channel(address, channels.options(8 << 20)) as channel:
        client.wait_ready()
        methods = channels.methods(channel)
        stubs = {f"{method.rpartition('.')[2]}Request": call for method, call in methods.items()}
        client.create_collection("texts", model="tiny")
        namesake = stubs["UpsertDocumentsRequest"](batch("1"))
        client.delete_collection("texts")
        for name in ("texts", "third", "fourth"):
            client.create_collection(name, model="tiny")
        client.create_collection("vectors", dimensions=3)
        texts = stubs["UpsertDocumentsRequest"](batch("1", "2", request_id="used"))
        vectors = stubs["UpsertDocumentsRequest"](upsert_vectors(1, 2, 3, ids="1"))
        page = stubs["ListDocumentsRequest"](listing(filter="_id:*", page_size=1, read_after=[texts.write_token]))
        assert page.next_page_token
        yield World(
            methods=stubs,
            token_of_texts=texts.write_token,
            token_of_vectors=vectors.write_token,
            token_of_a_namesake=namesake.write_token,
            page_of_a_filter=page.next_page_token,
        )


def refusal(call: Callable[[], object]) -> tuple[StatusCode, str, ErrorInfo | None]:
    """Code, message and, where there is one, the ErrorInfo of a call that fails."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    error: Any = failed.value
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    if details is None:
        return error.code(), error.details(), None
    info, status = ErrorInfo(), Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    assert status.details[0].Unpack(info)
    return error.code(), error.details(), info


def check_unharmed(world: World) -> None:
    """A good search finds what was there before, no less and no more."""
    found = world.methods["SearchRequest"](search(read_after=[world.token_of_texts]))
    assert [hit.document.id for hit in found.hits] == ["1", "2"]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name.replace(" ", "-"))
def test_a_bad_request_gets_its_reason_and_changes_nothing(world: World, bad: Bad) -> None:
    """Code and reason are the table's, the message says what is wrong and then what to do, the next call succeeds."""
    request = bad.request if isinstance(bad.request, Message) else bad.request(world)
    code, message, info = refusal(lambda: world.methods[type(request).__name__](request))
    assert info is not None
    assert (code, info.reason, info.domain) == (bad.code, bad.reason, "nearshore")
    assert bad.advice in message
    assert ". " in message, "a fault without a remedy"
    check_unharmed(world)


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("nearshore.v1.EmbeddingService/Embed", b"\x12\x02\xff\xfe"),
        ("nearshore.v1.DocumentService/UpsertDocuments", b"\x0a\x02\xff\xfe"),
        ("nearshore.v1.SearchService/Search", b"\x0a\xff\xff\xff\xff\xff"),
        ("grpc.health.v1.Health/Check", b"\x0a\x02\xff\xfe"),
        ("grpc.health.v1.Health/Watch", b"\x0a\x02\xff\xfe"),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"\x0a\x02\xff\xfe"),
    ],
    ids=["UTF-8-of-a-text", "UTF-8-of-a-name", "no-message", "health", "watch", "reflection"],
)
def test_bytes_that_are_no_message_are_a_bad_request(world: World, address: str, method: str, data: bytes) -> None:
    """Whatever service they reach, the caller is told what to send, and the log holds no traceback (see address)."""
    with grpc.insecure_channel(address, channels.options(8 << 20)) as channel:
        raw: Any = channel.stream_stream(f"/{method}")
        code, message, info = refusal(lambda: next(raw(iter([data]))))
    assert info is not None
    assert (code, info.reason) == (StatusCode.INVALID_ARGUMENT, "UNDECODABLE_REQUEST")
    assert "generated from the proto" in message
    check_unharmed(world)


@pytest.mark.parametrize(
    ("method", "data", "code"),
    [
        ("EmbeddingService/Embed", b"\x12" + b"\x81\x80\x40" + b"x" * MAX_MESSAGE_BYTES, StatusCode.RESOURCE_EXHAUSTED),
        ("SearchService/Divine", b"", StatusCode.UNIMPLEMENTED),
    ],
    ids=["oversized", "no-method"],
)
def test_what_grpc_refuses_keeps_its_own_code(
    world: World, address: str, method: str, data: bytes, code: StatusCode
) -> None:
    """Oversized messages and unknown methods never reach the service, and harm nobody."""
    with grpc.insecure_channel(address, channels.options(8 << 20)) as channel:
        raw: Any = channel.unary_unary(f"/nearshore.v1.{method}")
        refused, _, info = refusal(lambda: raw(data))
    assert (refused, info) == (code, None)
    check_unharmed(world)


def test_an_answer_that_does_not_fit_is_refused(world: World) -> None:
    """The caller learns what to ask less of instead of seeing the connection fail."""
    write, token = world.methods["UpsertDocumentsRequest"], ""
    for first in range(0, 160, 8):
        large = [Document(id=f"large {first + n}", text="cat", title="x" * 8_000) for n in range(8)]
        token = write(UpsertDocumentsRequest(collection="collections/third", documents=large)).write_token
    request = search(collection="collections/third", limit=160, read_after=[token])
    code, message, info = refusal(lambda: world.methods["SearchRequest"](request))
    assert info is not None
    assert (code, info.reason) == (StatusCode.INVALID_ARGUMENT, "ANSWER_TOO_LARGE")
    assert "fewer" in message
    check_unharmed(world)
