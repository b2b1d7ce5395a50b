"""Streams of batches through a real server: what both clients get, and what no caller can make of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
import structlog
from google.rpc.error_details_pb2 import ErrorInfo
from grpc import aio

from nearshore.client import AsyncClient, Client, EmbeddedBatch, Retries, StreamLostError
from nearshore.documents.errors import BatchSizeError
from nearshore.embedding.session import Session
from nearshore.errors import DeadlineError, NearshoreError, OverloadedError
from nearshore.exit_codes import ExitCode
from nearshore.records import F32
from nearshore.service.streams import MAX_BATCHES, ServerStoppingError, Stream, StreamBrokenError
from nearshore.v1.embedding_service_pb2 import EmbedRequest, EmbedStreamRequest, EmbedStreamResponse
from nearshore.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from tests.ports import free_port
from tests.scraping import scrape
from tests.servers import InProcessServer

WAIT_S = 30.0
BATCHES = [["red bird", "a cat in the city"], [""], ["x"] * 40, ["a river", "a dog", "a fish"]]
Start = Callable[..., InProcessServer]


class Gate:
    """A model that runs only while a test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_run = threading.Event()
        self.may_run.set()
        self.running = threading.Semaphore(0)
        run = Session.run_tokens

        def held(session: Session, texts: Sequence[Sequence[int]]) -> F32:
            self.running.release()
            assert self.may_run.wait(WAIT_S)
            return run(session, texts)

        monkeypatch.setattr(Session, "run_tokens", held)

    def hold(self) -> None:
        """From now on runs wait."""
        self.may_run.clear()
        while self.running.acquire(blocking=False):
            pass


class Caller:
    """A stream that a test writes to and reads from as it likes."""

    def __init__(self, channel: grpc.Channel, **options: Any) -> None:
        self._queue: SimpleQueue[EmbedStreamRequest | None] = SimpleQueue()
        self.sent = threading.Semaphore(0)  # one for each request that gRPC took
        self.answers: Any = EmbeddingServiceStub(channel).EmbedStream(self._requests(), **options)

    def _requests(self) -> Iterator[EmbedStreamRequest]:
        while (request := self._queue.get()) is not None:
            self.sent.release()
            yield request

    def send(self, number: int, texts: Sequence[str], **fields: Any) -> None:
        self._queue.put(EmbedStreamRequest(id=number, batch=EmbedRequest(texts=texts, **fields)))

    def end(self) -> None:
        self._queue.put(None)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The model of servers that are started from now on."""
    gate = Gate(monkeypatch)
    yield gate
    gate.may_run.set()


def bits(outcomes: Sequence[EmbeddedBatch]) -> list[bytes]:
    """The vectors of each batch, in the order of the batches."""
    return [each.result().vectors.tobytes() for each in sorted(outcomes, key=lambda each: each.number)]


def reason(answer: EmbedStreamResponse) -> str:
    """Why a batch failed."""
    info = ErrorInfo()
    assert any(detail.Unpack(info) for detail in answer.error.details)
    found: str = info.reason
    return found


def test_both_clients_get_what_embed_gives(client: Client, server: InProcessServer) -> None:
    """Every batch is answered once, with the bits of Embed, whether batches are at hand or have to be awaited."""
    expected = [client.embed(batch).vectors.tobytes() for batch in BATCHES]
    assert bits(list(client.embed_stream(BATCHES))) == expected
    assert bits(list(client.embed_stream(iter(BATCHES)))) == expected
    assert list(client.embed_stream([])) == []
    (cut,) = client.embed_stream([["cat"]], dimensions=8)
    assert cut.result().vectors.tobytes() == client.embed(["cat"], dimensions=8).vectors.tobytes()

    async def awaited() -> AsyncIterator[list[str]]:
        for batch in BATCHES:
            yield batch

    async def ask() -> None:
        async with AsyncClient(server.address) as asking:
            assert bits([each async for each in asking.embed_stream(BATCHES)]) == expected
            assert bits([each async for each in asking.embed_stream(awaited())]) == expected

    asyncio.run(ask())


def test_a_batch_fails_alone(client: Client, server: InProcessServer) -> None:
    """Its error has the class, the reason and the remedy of Embed's; the batches around it are answered."""
    batches = [["cat"], [], ["dog"], ["x"] * 2_000, ["a"]]
    outcomes = sorted(client.embed_stream(batches), key=lambda each: each.number)
    assert [each.error is None for each in outcomes] == [True, False, True, False, True]
    with pytest.raises(BatchSizeError, match="texts") as embedded:
        client.embed([])
    for outcome in (outcomes[1], outcomes[3]):
        with pytest.raises(BatchSizeError) as streamed:
            outcome.result()
        assert streamed.value.remedy == embedded.value.remedy
        assert streamed.value.metadata["request_id"]

    async def ask() -> list[type[NearshoreError | None]]:
        async with AsyncClient(server.address) as asking:
            return [type(each.error) async for each in asking.embed_stream([[]])]

    assert asyncio.run(ask()) == [BatchSizeError]


def test_vectors_of_tokens_are_not_streamed(server: InProcessServer) -> None:
    """They are refused by name, and the batch after them is answered."""
    with grpc.insecure_channel(server.address) as channel:
        caller = Caller(channel)
        caller.send(1, ["cat"], token_vectors=True)
        assert reason(next(caller.answers)) == "FIELD_NOT_ALLOWED"
        caller.send(2, ["cat"])
        assert next(caller.answers).answer.vectors.rows == 1
        caller.end()
        assert list(caller.answers) == []


def test_a_flood_of_empty_batches_is_refused_one_by_one(client: Client) -> None:
    """Each is told why, and the server is none the worse."""
    outcomes = list(client.embed_stream([] for _ in range(200)))
    assert {each.number for each in outcomes} == set(range(200))
    assert {type(each.error) for each in outcomes} == {BatchSizeError}
    assert len(client.embed(["cat"]).vectors) == 1


def test_answers_overtake_each_other(gate: Gate, start_server: Start) -> None:
    """A short batch behind a long one is answered while that one is being embedded."""
    server = start_server(embedding__workers=1, embedding__max_run_tokens=16, embedding__share_in_flight=False)
    gate.hold()
    with grpc.insecure_channel(server.address) as channel:
        caller = Caller(channel)
        caller.send(1, ["a cat in the city"] * 200 + ["cat"] * 2)
        assert gate.running.acquire(timeout=WAIT_S)
        caller.send(2, ["cat"])
        gate.may_run.set()
        assert [next(caller.answers).id for _ in range(2)] == [2, 1]
        caller.end()


def test_who_does_not_read_is_not_read(gate: Gate, start_server: Start) -> None:
    """With MAX_BATCHES unanswered the server takes no more, whatever is sent; all are answered in the end."""
    server = start_server(server__max_concurrent_calls=MAX_BATCHES + 2)
    gate.hold()
    with grpc.insecure_channel(server.address) as channel:
        caller = Caller(channel)
        for number in range(40):
            caller.send(number, ["cat"])
        for _ in range(MAX_BATCHES + 1):
            assert caller.sent.acquire(timeout=WAIT_S)
        assert gate.running.acquire(timeout=WAIT_S)
        gate.may_run.set()
        answers = [next(caller.answers) for _ in range(40)]
        caller.end()
    assert {each.WhichOneof("outcome") for each in answers} == {"answer"}  # more at once would be TOO_MANY_CALLS


def test_a_caller_that_never_reads_holds_up_nobody(start_server: Start) -> None:
    """Calls of others find a place, for as long as it likes; and the server stops all the same."""
    server = start_server(server__max_concurrent_calls=2, server__grace_s=0.5)
    patient = Retries(overload_s=WAIT_S, max_pause_s=0.1)
    with grpc.insecure_channel(server.address) as channel, server.client(retries=patient) as client:
        caller = Caller(channel)
        for number in range(200):
            caller.send(number, [f"cat {number}"] * 1_000)
        assert caller.sent.acquire(timeout=WAIT_S)
        for _ in range(3):
            assert len(client.embed(["cat"]).vectors) == 1
        assert server.stop() is ExitCode.OK
        caller.end()


def test_a_caller_that_ends_at_once_is_answered(server: InProcessServer) -> None:
    """What was sent before the end is answered, and then the stream ends well."""
    with grpc.insecure_channel(server.address) as channel:
        requests = [EmbedStreamRequest(id=number, batch=EmbedRequest(texts=["cat"])) for number in range(20)]
        call: Any = EmbeddingServiceStub(channel).EmbedStream(iter(requests), metadata=(("x-request-id", "abc"),))
        assert {each.id for each in call} == set(range(20))
        assert call.code() is grpc.StatusCode.OK
        assert ("x-request-id", "abc") in [(each.key, each.value) for each in call.trailing_metadata()]
        assert list(EmbeddingServiceStub(channel).EmbedStream(iter(()))) == []


def test_a_caller_that_leaves_costs_nothing(gate: Gate, start_server: Start) -> None:
    """What waits of a cancelled stream is never embedded, and its places are free again."""
    server = start_server(embedding__workers=1, server__max_concurrent_calls=4)
    gate.hold()
    with grpc.insecure_channel(server.address) as channel, server.client() as client:
        for _ in range(4):
            caller = Caller(channel)
            caller.send(1, ["cat"])
            caller.send(2, ["a cat in the city"])
            assert gate.running.acquire(timeout=WAIT_S)
            caller.answers.cancel()
            caller.end()
            gate.may_run.set()
            assert len(client.embed(["dog"]).vectors) == 1
            gate.hold()
        gate.may_run.set()
        assert len(list(client.embed_stream([["cat"]] * 3))) == 3


def test_a_reader_may_leave(client: Client, server: InProcessServer) -> None:
    """Both clients end the stream when its reader goes, though there are batches without end."""

    def endless() -> Iterator[list[str]]:
        while True:
            yield ["cat"]

    stream = client.embed_stream(endless())
    assert next(stream).result().vectors.shape == (1, 32)
    stream.close()  # type: ignore[attr-defined]

    async def ask() -> None:
        async with AsyncClient(server.address) as asking:
            async for outcome in asking.embed_stream(endless()):
                assert outcome.error is None
                break

    asyncio.run(ask())
    assert len(client.embed(["cat"]).vectors) == 1


def test_a_deadline_is_told_batch_by_batch(gate: Gate, start_server: Start) -> None:
    """What is not embedded by then fails with DeadlineError, as its own error or as the stream's."""
    server = start_server(embedding__workers=1)
    gate.hold()
    with server.client() as client:
        stream = client.embed_stream([["cat"], ["a dog"]], timeout_s=1.0)
        outcomes: list[EmbeddedBatch] = []
        with contextlib.suppress(DeadlineError):
            outcomes.extend(stream)
        assert all(isinstance(each.error, DeadlineError) for each in outcomes)
        gate.may_run.set()
        assert len(client.embed(["cat"]).vectors) == 1


def test_a_stop_answers_what_was_taken(gate: Gate, start_server: Start) -> None:
    """Then the stream ends with UNAVAILABLE, a reason and a remedy, well before the grace is over."""
    server = start_server(server__grace_s=WAIT_S)
    gate.hold()
    with grpc.insecure_channel(server.address) as channel:
        caller = Caller(channel)
        caller.send(1, ["cat"])
        assert gate.running.acquire(timeout=WAIT_S)
        server.ask_to_stop()
        gate.may_run.set()
        assert next(caller.answers).answer.vectors.rows == 1
        with pytest.raises(grpc.RpcError) as ended:
            next(caller.answers)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "new stream" in (ended.value.details() or "")
        caller.end()
    assert server.stop() is ExitCode.OK


def test_clients_are_told_that_the_server_stops(start_server: Start) -> None:
    """ServerStoppingError is raised after the answers, so that the rest can be sent elsewhere."""

    def until_stopped(server: InProcessServer, go_on: threading.Event) -> Iterator[list[str]]:
        yield ["cat"]
        assert go_on.wait(WAIT_S)
        server.ask_to_stop()
        forever.wait(WAIT_S)

    forever = threading.Event()
    server, answered = start_server(), threading.Event()
    with server.client() as client:
        stream = client.embed_stream(until_stopped(server, answered))
        assert next(stream).number == 0
        answered.set()
        with pytest.raises(ServerStoppingError, match="new stream"):
            next(stream)
        forever.set()


def test_a_stop_is_no_fault_of_an_asynchronous_client(gate: Gate, start_server: Start) -> None:
    """With a batch being sent, what it raises is an UnavailableError that says what to do with the others."""
    server = start_server()
    gate.hold()

    def endless() -> Iterator[list[str]]:
        while True:
            yield ["x" * 500_000] * 4

    async def ask() -> None:
        async with AsyncClient(server.address) as asking:
            reading = asyncio.ensure_future(exhausted(asking.embed_stream(endless())))
            assert await asyncio.to_thread(gate.running.acquire, timeout=WAIT_S)
            server.ask_to_stop()
            gate.may_run.set()
            with pytest.raises((ServerStoppingError, StreamLostError), match="new stream"):
                await asyncio.wait_for(reading, WAIT_S)

    async def exhausted(stream: AsyncIterator[EmbeddedBatch]) -> None:
        async for outcome in stream:
            assert outcome.error is None

    asyncio.run(ask())


class Broken:
    """A call's context to which nothing can be written."""

    def __init__(self, context: Any, error: Exception) -> None:
        self.read = context.read
        self._error = error

    async def write(self, answer: bytes) -> None:
        raise self._error


@pytest.fixture
def break_streams(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Have every write to a stream fail with this error from now on."""

    def break_with(error: Exception) -> None:
        def broken(context: Any, *others: Any) -> Stream:
            fails: Any = Broken(context, error)
            return Stream(fails, *others)

        monkeypatch.setattr("nearshore.service.calls.Stream", broken)

    return break_with


@pytest.mark.parametrize(
    "error", [aio.InternalError("the transport is closed"), aio.BaseError("Server already stopped.")]
)
def test_a_write_that_fails_ends_the_stream_with_a_reason(
    client: Client, break_streams: Callable[[Exception], None], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A caller that is there still is told what to do; the log has no traceback."""
    break_streams(error)
    with pytest.raises(StreamBrokenError, match="new stream"):
        list(client.embed_stream([["cat"], ["dog"]]))
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_write_that_is_a_bug_leaves_its_traceback(
    server: InProcessServer, break_streams: Callable[[Exception], None]
) -> None:
    """A call that is used wrongly fails with an error of the same family; it is not taken for the network's."""
    break_streams(aio.UsageError("RPC already finished."))
    with structlog.testing.capture_logs() as logged, grpc.insecure_channel(server.address) as channel:
        stream = Caller(channel)
        stream.send(1, ["cat"])
        with pytest.raises(grpc.RpcError) as refused:
            next(stream.answers)
        stream.end()
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    (told,) = [each for each in logged if each["event"] == "A stream failed by a bug"]
    assert told["exc_info"]
    assert told["remedy"]


def test_more_streams_than_allowed_are_refused(start_server: Start) -> None:
    """Half as many as calls are open at once; calls are taken all the while, and another stream once one has ended."""
    server = start_server(server__max_concurrent_calls=2)
    with grpc.insecure_channel(server.address) as channel, server.client() as client:
        open_one = Caller(channel)
        open_one.send(1, ["cat"])
        next(open_one.answers)
        with pytest.raises(OverloadedError) as refused:
            list(client.embed_stream([["cat"]]))
        assert refused.value.reason == "TOO_MANY_STREAMS"
        assert len(client.embed(["cat"]).vectors) == 1
        open_one.end()
        assert list(open_one.answers) == []
        assert len(list(client.embed_stream([["cat"]]))) == 1


def test_a_batch_without_a_place_is_told_so(gate: Gate, start_server: Start) -> None:
    """Its error has the reason that a call would have, and when to come back; the stream goes on."""
    server = start_server(server__max_concurrent_calls=1)
    gate.hold()
    with grpc.insecure_channel(server.address) as channel:
        caller = Caller(channel)
        caller.send(1, ["cat"])
        assert gate.running.acquire(timeout=WAIT_S)
        caller.send(2, ["dog"])
        refused = next(caller.answers)
        assert (refused.id, reason(refused)) == (2, "TOO_MANY_CALLS")
        gate.may_run.set()
        assert next(caller.answers).answer.vectors.rows == 1
        caller.end()


def test_bytes_that_are_no_batch_end_the_stream(server: InProcessServer) -> None:
    """They have no id: what was sent before is answered, then the caller is told what to send."""
    good = EmbedStreamRequest(id=7, batch=EmbedRequest(texts=["cat"])).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        raw: Any = channel.stream_stream("/nearshore.v1.EmbeddingService/EmbedStream")
        call = raw(iter([good, b"\x12\x02\xff\xfe"]))
        assert EmbedStreamResponse.FromString(next(call)).id == 7
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_batches_are_counted_as_calls(start_server: Start) -> None:
    """By the code of each, and as bulk work."""
    port = free_port()
    with start_server(metrics__port=port).client() as client:
        list(client.embed_stream([["cat"], [], ["dog"]]))
    seen = scrape(port)
    counted = [
        seen.value("nearshore_calls_total", method="EmbeddingService/EmbedStream", code=code)
        for code in ("OK", "INVALID_ARGUMENT")
    ]
    assert counted == [2, 1]
    assert seen.value("nearshore_queue_seconds_count", priority="bulk") == 2


def test_what_the_batches_raise_reaches_the_caller(client: Client, server: InProcessServer) -> None:
    """Both clients give the outcomes of the batches before it, then raise it, be it the caller's or of an argument."""

    def broken() -> Iterator[list[str]]:
        yield ["cat"]
        raise KeyError("the caller's own")

    for batches, kind in ((broken(), KeyError), ([["cat"], "dog"], TypeError)):
        stream = client.embed_stream(batches)
        assert next(stream).number == 0
        with pytest.raises(kind):
            next(stream)
    no_batches: list[Any] = ["cat", b"cat", 5, {("cat",)}, frozenset({("cat",)}), {0: ["cat"]}]
    for wrong in no_batches:
        with pytest.raises(TypeError, match="batches is"):
            client.embed_stream(wrong)
    for number in (0, -1, float("nan"), True):
        with pytest.raises((TypeError, ValueError), match="timeout_s is"):
            client.embed_stream([["cat"]], timeout_s=number)
    assert [each.number for each in client.embed_stream([["cat"]], timeout_s=float("inf"))] == [0]

    async def ask() -> None:
        async with AsyncClient(server.address) as asking:
            with pytest.raises(KeyError):
                assert [each.number async for each in asking.embed_stream(broken())] == [0]
            for wrong in no_batches:
                with pytest.raises(TypeError, match="batches is"):
                    asking.embed_stream(wrong)
            with pytest.raises(ValueError, match="timeout_s is"):
                asking.embed_stream([["cat"]], timeout_s=0)
            endless = asking.embed_stream([["cat"]], timeout_s=float("inf"))
            assert [each.number async for each in endless] == [0]

    asyncio.run(ask())


WRONG: list[tuple[Any, type[Exception], str]] = [
    ("dog", TypeError, r"batches\[2\]\.texts is one str"),
    (["dog", 5], TypeError, r"batches\[2\]\.texts\[1\] is 5; it takes str"),
    (None, TypeError, r"batches\[2\]\.texts is None"),
    ({"dog"}, TypeError, r"batches\[2\]\.texts is {'dog'}; it takes a list of str: the answer goes by their order"),
    (["\ud800"], ValueError, r"batches\[2\]\.texts takes text that UTF-8 can hold"),
]


@pytest.mark.parametrize(("wrong", "kind", "told"), WRONG)
def test_a_batch_that_no_request_can_hold_is_named(
    client: Client, server: InProcessServer, wrong: Any, kind: type[Exception], told: str
) -> None:
    """Both clients give the outcomes of the batches before it, then say which it is; one behind it is not sent."""
    batches = [["cat"], ["fish"], wrong, ["bird"]]
    found: set[int] = set()
    with pytest.raises(kind, match=told):
        found.update(each.number for each in client.embed_stream(batches))
    assert found == {0, 1}

    async def ask() -> None:
        async with AsyncClient(server.address) as asking:
            async for each in asking.embed_stream(batches):
                found.add(each.number)

    found.clear()
    with pytest.raises(kind, match=told):
        asyncio.run(ask())
    assert found == {0, 1}


def test_an_option_that_no_request_can_hold_is_of_no_batch(client: Client, server: InProcessServer) -> None:
    """Both clients refuse it by its own name as embed does: at once, and nothing is sent."""

    def unread() -> Iterator[list[str]]:
        raise AssertionError("read")
        yield ["cat"]

    wrong: dict[str, Any] = {"model": 5}
    with pytest.raises(TypeError, match=r"^model is 5"):
        client.embed_stream(unread(), **wrong)

    async def ask() -> None:
        async with AsyncClient(server.address) as asking:
            with pytest.raises(TypeError, match=r"^model is 5"):
                asking.embed_stream(unread(), **wrong)

    asyncio.run(ask())
