"""Callers that leave, a model that fails, a server that is full: everybody else is still served."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO, TextIOWrapper
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearshore.client import Client, Document, ServerUnreachableError
from nearshore.embedding import Embedder, Embeddings
from nearshore.embedding.session import Session
from nearshore.errors import DeadlineError, NearshoreError, OverloadedError
from nearshore.exit_codes import ExitCode
from nearshore.records import F32
from nearshore.v1.embedding_service_pb2 import EmbedRequest
from nearshore.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from tests.servers import InProcessServer

WAIT_S = 30.0
Start = Callable[..., InProcessServer]


class Model:
    """The model of a server, made to wait, to fail, and to tell what it sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_run = threading.Event()
        self.may_run.set()
        self.running = threading.Semaphore(0)  # one for each run that has begun
        self.submitted = threading.Semaphore(0)  # one for each call that waits for the model
        self.left = threading.Semaphore(0)  # one for each call that went before it was answered
        self.error: Exception | None = None
        self.token_counts: list[int] = []
        run, submit = Session.run_tokens, Embedder.submit

        def watched_run(session: Session, texts: Sequence[Sequence[int]]) -> F32:
            self.token_counts.append(len(texts[0]))
            self.running.release()
            assert self.may_run.wait(WAIT_S)
            if self.error is not None:
                raise self.error
            return run(session, texts)

        def watched_submit(embedder: Embedder, *arguments: Any, **options: Any) -> Future[Embeddings]:
            future = submit(embedder, *arguments, **options)
            future.add_done_callback(lambda done: self.left.release() if done.cancelled() else None)
            self.submitted.release()
            return future

        monkeypatch.setattr(Session, "run_tokens", watched_run)
        monkeypatch.setattr(Embedder, "submit", watched_submit)

    def hold(self) -> None:
        """From now on runs wait for release()."""
        self.may_run.clear()
        self.token_counts.clear()
        while self.running.acquire(blocking=False):
            pass

    def release(self) -> None:
        """Let all runs go on."""
        self.may_run.set()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    return Model(monkeypatch)


def begin(channel: grpc.Channel, texts: list[str], timeout_s: float = WAIT_S) -> Any:
    return EmbeddingServiceStub(channel).Embed.future(EmbedRequest(texts=texts), timeout=timeout_s)


def test_a_caller_who_leaves_costs_nothing_and_hangs_nobody(model: Model, start_server: Start) -> None:
    """The model never sees the texts of a cancelled call; the calls before and after it are answered."""
    server = start_server(embedding__workers=1)
    with grpc.insecure_channel(server.address) as channel:
        model.hold()
        first = begin(channel, ["a"])
        assert model.running.acquire(timeout=WAIT_S)
        leaving = begin(channel, ["a cat in the city"])
        last = begin(channel, ["a dog"])
        for _ in range(3):
            assert model.submitted.acquire(timeout=WAIT_S)
        leaving.cancel()
        assert model.left.acquire(timeout=WAIT_S)
        model.release()
        assert first.result().vectors.rows == last.result().vectors.rows == 1
    assert model.token_counts == [3, 4]


def test_more_calls_than_allowed_are_refused(model: Model, start_server: Start) -> None:
    """A call beyond server.max_concurrent_calls is refused with its own reason; after the others end one is taken."""
    server = start_server(server__max_concurrent_calls=1)
    with grpc.insecure_channel(server.address) as channel, server.client() as client:
        model.hold()
        first = begin(channel, ["a"])
        assert model.running.acquire(timeout=WAIT_S)
        with pytest.raises(OverloadedError) as refused:
            client.embed(["a dog"])
        assert refused.value.reason == "TOO_MANY_CALLS"
        model.release()
        assert first.result().vectors.rows == 1
        assert len(client.embed(["a dog"]).vectors) == 1


def test_a_deadline_ends_a_call_and_its_work(model: Model, start_server: Start) -> None:
    """A call past its deadline fails as such, and the model never sees its texts."""
    server = start_server(embedding__workers=1)
    with grpc.insecure_channel(server.address) as channel, server.client(timeout_s=0.2) as hasty:
        model.hold()
        first = begin(channel, ["a"])
        assert model.running.acquire(timeout=WAIT_S)
        with pytest.raises(DeadlineError):
            hasty.embed(["a cat in the city"])
        last = begin(channel, ["a dog"])
        model.release()
        assert first.result().vectors.rows == last.result().vectors.rows == 1
    assert model.token_counts == [3, 4]


def test_a_failing_model_fails_its_call_only(model: Model, start_server: Start) -> None:
    """The caller learns that the model failed, nothing of how, and the next call works."""
    server = start_server()
    with server.client() as client:
        model.error = RuntimeError("a secret of the model")
        with pytest.raises(NearshoreError) as failed:
            client.embed(["a"])
        assert "secret" not in str(failed.value)
        assert failed.value.metadata["request_id"]
        model.error = None
        assert client.embed(["a"]).vectors.shape == (1, 32)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_bug_shows_nothing_of_itself(start_server: Start, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """An exception that nobody foresaw is INTERNAL with a fixed text and the request id, logged or not."""
    server = start_server()

    def broken(*_: object, **__: object) -> None:
        raise ValueError("a secret of the server")

    with server.client() as client, grpc.insecure_channel(server.address) as channel:
        with monkeypatch.context() as patched, TextIOWrapper(FileIO(device, "w"), write_through=True) as stderr:
            patched.setattr(Embedder, "submit", broken)
            patched.setattr("sys.stderr", stderr)
            with pytest.raises(grpc.RpcError) as failed:
                EmbeddingServiceStub(channel).Embed(EmbedRequest(texts=["a"]), metadata=(("x-request-id", "abc"),))
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(failed.value)
        assert "abc" in (failed.value.details() or "")
        assert client.embed(["a"]).vectors.shape == (1, 32)


def test_a_full_server_refuses_and_says_when_to_come_back(model: Model, start_server: Start) -> None:
    """Beyond its queue a server answers at once with OVERLOADED and RetryInfo; what it took, it finishes."""
    server = start_server(embedding__workers=1, embedding__max_queued_tokens=1024)
    texts = ["a cat and a dog"] * 150  # 7 tokens each: more than 1,024
    with grpc.insecure_channel(server.address) as channel, server.client() as client:
        model.hold()
        taken = begin(channel, ["a"])
        assert model.running.acquire(timeout=WAIT_S)
        with pytest.raises(grpc.RpcError) as refused:
            begin(channel, texts).result()
        with pytest.raises(OverloadedError):
            client.embed(texts)
        model.release()
        assert taken.result().vectors.rows == 1
        assert client.embed(["a"]).vectors.shape == (1, 32)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing: Any = refused.value.trailing_metadata()
    status = Status.FromString(dict(trailing)["grpc-status-details-bin"])
    assert any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)


def test_a_stop_lets_calls_in_flight_finish(model: Model, start_server: Start) -> None:
    """NOT_SERVING first, then the call in flight is answered, then the end; new calls find nobody."""
    server = start_server()
    with grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        statuses = (response.status for response in watch)
        while next(statuses) != health_pb2.HealthCheckResponse.SERVING:
            pass
        model.hold()
        in_flight = begin(channel, ["a"])
        assert model.running.acquire(timeout=WAIT_S)
        server.ask_to_stop()
        assert next(statuses) == health_pb2.HealthCheckResponse.NOT_SERVING
        model.release()
        assert in_flight.result().vectors.rows == 1
        assert server.stop() is ExitCode.OK
    with Client(server.address) as late, pytest.raises(ServerUnreachableError):
        late.embed(["a"])


def test_many_callers_get_their_own_answers(server: InProcessServer) -> None:
    """Sixty-four calls at once do not mix, and each vector is what it is alone, bit for bit."""
    texts = [f"{word} {n}" for n in range(16) for word in ("cat", "red bird", "a river in the city", "x")]
    with server.client() as client, ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda text: client.embed([text]).vectors.tobytes(), texts))
        alone = client.embed(texts).vectors
    assert together == [row.tobytes() for row in alone]


def test_concurrent_writes_are_all_there(server: InProcessServer, collection_id: str) -> None:
    """Upserts of many callers are acknowledged once each and all can be read."""
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        client.create_collection(collection_id, model="tiny")
        written = list(pool.map(lambda n: client.upsert(collection_id, [Document(str(n), f"cat {n}")]), range(40)))
        assert all(each.write_token for each in written)
        assert client.count(collection_id) == 40
