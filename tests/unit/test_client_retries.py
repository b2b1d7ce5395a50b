"""Which failed calls both clients make again, with what, and when they give up."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode

from nearshore.client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    ClientClosedError,
    Document,
    Retries,
    ServerUnreachableError,
    logged_as,
)
from nearshore.errors import (
    CollectionNotFoundError,
    CommitUnknownError,
    DeadlineError,
    InvalidArgumentError,
    NearshoreError,
    OverloadedError,
    StorageFullError,
    UnavailableError,
)
from nearshore.v1 import document_service_pb2 as documents_pb
from tests.scripted_server import Refusal, ScriptedServer

QUICK = Retries(away_s=20.0, first_contact_s=20.0, overload_s=20.0, first_pause_s=0.001, max_pause_s=0.01)
WAIT_S = 20.0
Calls = Callable[[Any], Any]  # the methods of a client have the same names in both
Run = Callable[..., Any]
Serve = Callable[..., ScriptedServer]
STORE_AWAY = Refusal(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", 0.001)
LOST = Refusal(StatusCode.UNAVAILABLE)
ENDING = Refusal(StatusCode.CANCELLED)  # what a call gets that reaches a server in the moment of its end
COMMIT_UNKNOWN = Refusal(StatusCode.UNAVAILABLE, CommitUnknownError.reason)
FULL = Refusal(StatusCode.RESOURCE_EXHAUSTED, OverloadedError.reason, 0.001)


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """A function that starts a scripted server."""
    running: list[ScriptedServer] = []

    def start(*refusals: Refusal, port: int = 0, max_message_bytes: int = -1) -> ScriptedServer:
        running.append(ScriptedServer(*refusals, port=port, max_message_bytes=max_message_bytes))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture(params=["blocking", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """A function that makes calls with one of the clients and returns what the last one answered."""

    async def in_turn(target: str, calls: tuple[Calls, ...], options: dict[str, Any]) -> Any:
        async with AsyncClient(target, **options) as client:
            return [await call(client) for call in calls][-1]

    def run(target: str, *calls: Calls, **options: Any) -> Any:
        options = {"retries": QUICK, **options}
        if request.param == "asyncio":
            return asyncio.run(in_turn(target, calls, options))
        with Client(target, **options) as client:
            return [call(client) for call in calls][-1]

    return run


def count(client: Any) -> Any:
    return client.count("docs")


def search(client: Any) -> Any:
    return client.search("docs", "query")


def upsert(client: Any) -> Any:
    return client.upsert("docs", [Document("a", "cat")])


def delete(client: Any) -> Any:
    return client.delete("docs", ids=["a"])


def delete_by_filter(client: Any) -> Any:
    return client.delete("docs", filter='lang = "en"')


def create(client: Any) -> Any:
    return client.create_collection("docs", dimensions=3)


def drop(client: Any) -> Any:
    return client.delete_collection("docs")


@pytest.mark.parametrize("refusal", [STORE_AWAY, FULL], ids=lambda refusal: refusal.reason)
@pytest.mark.parametrize("call", [count, search, upsert, delete, delete_by_filter, create, drop])
def test_what_the_server_says_may_be_tried_again_is(serve: Serve, run: Run, call: Calls, refusal: Refusal) -> None:
    """RetryInfo means that nothing was done, so any call is made again, with the same request, until it is answered."""
    server = serve(refusal, refusal, refusal)
    run(server.target, call)
    assert len(server.received) == 4
    assert len({each.request for each in server.received}) == 1


@pytest.mark.parametrize("refusal", [LOST, ENDING, COMMIT_UNKNOWN], ids=["lost", "ending", "commit unknown"])
@pytest.mark.parametrize("call", [count, search, upsert, delete])
def test_a_call_that_may_be_repeated_survives_a_lost_connection(
    serve: Serve, run: Run, call: Calls, refusal: Refusal
) -> None:
    """A read changes nothing, and a write carries a request_id, the same one in each attempt."""
    server = serve(refusal, refusal)
    run(server.target, call)
    assert len(server.received) == 3
    assert len({each.request for each in server.received}) == 1


@pytest.mark.parametrize("refusal", [LOST, COMMIT_UNKNOWN], ids=["lost", "commit unknown"])
@pytest.mark.parametrize("call", [delete_by_filter, create, drop])
def test_a_call_that_may_not_be_repeated_is_not(serve: Serve, run: Run, call: Calls, refusal: Refusal) -> None:
    """It may have been done, and a second time could undo what others did since, or fail for having succeeded."""
    server = serve(refusal)
    with pytest.raises(UnavailableError):
        run(server.target, call)
    assert len(server.received) == 1


def test_every_write_has_a_request_id_of_its_own(serve: Serve, run: Run) -> None:
    """The client makes one where the caller gives none; a delete by filter cannot have one."""
    server = serve()
    run(server.target, upsert, upsert, lambda client: client.upsert("docs", [], request_id="mine"), delete)
    upserts = [documents_pb.UpsertDocumentsRequest.FromString(each.request) for each in server.received[:3]]
    deleted = documents_pb.DeleteDocumentsRequest.FromString(server.received[3].request)
    ids = {upserts[0].request_id, upserts[1].request_id, deleted.request_id}
    assert len(ids) == 3
    assert all(len(each) == 32 for each in ids)
    assert upserts[2].request_id == "mine"
    run(server.target, delete_by_filter)
    assert not documents_pb.DeleteDocumentsRequest.FromString(server.received[4].request).request_id


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND"), CollectionNotFoundError),
        (Refusal(StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"), StorageFullError),
        (Refusal(StatusCode.RESOURCE_EXHAUSTED), OverloadedError),  # a proxy's
        (Refusal(StatusCode.UNAVAILABLE, "MODEL_RUN_FAILED"), UnavailableError),
        (Refusal(StatusCode.DEADLINE_EXCEEDED), DeadlineError),
        (Refusal(StatusCode.INTERNAL, "INTERNAL"), NearshoreError),
    ],
    ids=lambda value: value.reason or value.code.name if isinstance(value, Refusal) else "",
)
def test_what_no_retry_helps_is_raised_at_once(
    serve: Serve, run: Run, refusal: Refusal, kind: type[NearshoreError]
) -> None:
    """The caller hears of it after one attempt."""
    server = serve(refusal)
    with pytest.raises(kind):
        run(server.target, count)
    assert len(server.received) == 1


@pytest.mark.parametrize("whose", ["server", "client"])
@pytest.mark.parametrize(
    ("call", "what", "help_"),
    [(upsert, "request", "fewer documents or texts in one call"), (delete_by_filter, "answer", "Ask for less")],
    ids=["request", "answer"],
)
def test_a_message_that_is_too_large_is_the_callers_to_mend(
    serve: Serve, run: Run, whose: str, call: Calls, what: str, help_: str
) -> None:
    """Whichever side's limit it is, the error names it and what helps, and the call is not made again."""
    server = serve(max_message_bytes=40 if whose == "server" else -1)
    with pytest.raises(InvalidArgumentError) as refused:
        run(server.target, call, max_message_bytes=40 if whose == "client" else 1 << 20)
    assert refused.value.reason == "MESSAGE_TOO_LARGE"
    assert f"The {what} has " in refused.value.message
    assert f"{'server.' if whose == 'server' else ''}max_message_bytes of th" in refused.value.message
    assert "(40)" in refused.value.message
    assert help_ in refused.value.remedy
    assert ("If the call was a write, it has happened." in refused.value.remedy) == (what == "answer")
    assert not hasattr(refused.value, "__notes__")
    assert len(server.received) == (what == "answer")


def test_a_program_may_have_a_patience_of_its_own(serve: Serve, run: Run) -> None:
    """With NO_RETRIES each failure is raised; overload alone can be, too."""
    for refusal in (STORE_AWAY, FULL, LOST, COMMIT_UNKNOWN):
        server = serve(refusal)
        with pytest.raises(NearshoreError):
            run(server.target, upsert, retries=NO_RETRIES)
        assert len(server.received) == 1
    server = serve(LOST, STORE_AWAY, FULL)
    with pytest.raises(OverloadedError):
        run(server.target, upsert, retries=Retries(overload_s=0.0, first_pause_s=0.001))
    assert len(server.received) == 3


def test_patience_ends_with_the_last_error(serve: Serve, run: Run) -> None:
    """It names the server's reason, and how often it was tried."""
    server = serve(LOST, *[STORE_AWAY] * 1_000)
    with pytest.raises(UnavailableError) as refused:
        run(server.target, count, retries=Retries(away_s=0.2, first_pause_s=0.01, max_pause_s=0.05))
    assert refused.value.reason == "STORE_UNAVAILABLE"
    assert len(server.received) > 2
    assert refused.value.__notes__[0].startswith(f"{len(server.received)} attempts in ")


def test_no_attempt_outlives_the_deadline(serve: Serve, run: Run) -> None:
    """All attempts share it, whatever the patience, and a pause that would end after it is not begun."""
    endless = Retries(away_s=1e6, first_pause_s=0.001, max_pause_s=0.01)
    server = serve(*[STORE_AWAY] * 10_000)
    with pytest.raises((UnavailableError, DeadlineError)):
        run(server.target, count, timeout_s=0.5, retries=endless)
    assert 1 < len(server.received) < 10_000
    late = serve(STORE_AWAY._replace(retry_after_s=30.0))
    with pytest.raises(UnavailableError):
        run(late.target, count, timeout_s=WAIT_S, retries=endless)
    assert len(late.received) == 1


def test_patience_and_deadline_may_be_without_limit(serve: Serve, run: Run) -> None:
    """Infinity is longer than any number of failures, and no deadline goes to gRPC."""
    endless = Retries(away_s=math.inf, first_pause_s=1e-6, max_pause_s=1e-5)
    server = serve(*[STORE_AWAY._replace(retry_after_s=0.0)] * 1_100)
    run(server.target, count, timeout_s=math.inf, retries=endless)
    assert len(server.received) == 1_101


@pytest.mark.parametrize(
    ("before", "after", "short"),
    [(STORE_AWAY, FULL, Retries(overload_s=0.2)), (FULL, STORE_AWAY, Retries(away_s=0.2))],
    ids=["away, then full", "full, then away"],
)
def test_a_trouble_of_another_kind_has_its_own_time(
    serve: Serve, run: Run, before: Refusal, after: Refusal, short: Retries
) -> None:
    """Everybody comes back at once when a server does: who is refused then has not yet been patient with that."""
    server = serve(before._replace(retry_after_s=0.3), after)
    run(server.target, count, retries=replace(short, first_pause_s=0.001))
    assert len(server.received) == 3


def test_troubles_that_alternate_end_with_the_deadline(serve: Serve, run: Run) -> None:
    """However often one takes turns with the other."""
    server = serve(*[STORE_AWAY, FULL] * 10_000)
    with pytest.raises((UnavailableError, OverloadedError, DeadlineError)):
        run(server.target, count, timeout_s=0.5, retries=QUICK)
    assert 2 < len(server.received) < 20_000


def test_a_server_asks_for_a_pause(serve: Serve, run: Run) -> None:
    """A client waits for at least as long as RetryInfo says."""
    server = serve(STORE_AWAY._replace(retry_after_s=0.2))
    run(server.target, count)
    first, second = (each.at_s for each in server.received)
    assert second - first >= 0.2


def test_all_attempts_are_logged_as_one_call(serve: Serve, run: Run) -> None:
    """Each replica that tried has the same request id in its log."""
    server = serve(LOST, STORE_AWAY)
    with logged_as("order-4711"):
        run(server.target, count)
    assert [each.request_id for each in server.received] == ["order-4711"] * 3


@pytest.mark.parametrize("call", [count, upsert])
def test_a_call_waits_for_a_server_that_restarts(serve: Serve, run: Run, call: Calls) -> None:
    """Once a server has answered, a call outlives its absence."""
    server = serve()
    restarted: list[ScriptedServer] = []

    def restart(client: Any) -> Any:
        server.stop()
        threading.Timer(0.3, lambda: restarted.append(serve(port=server.port))).start()
        return call(client)

    run(server.target, count, restart, retries=Retries(away_s=WAIT_S, first_contact_s=0.0))
    assert len(restarted[0].received) == 1


def test_a_connection_that_breaks_in_the_first_call_is_no_first_contact(serve: Serve, run: Run) -> None:
    """There was a server: the call waits for it to come back as it would after an answer."""
    server = serve()
    server.may_answer.clear()
    restarted: list[ScriptedServer] = []

    def restart() -> None:
        assert server.asked.wait(WAIT_S)
        server.stop()
        server.may_answer.set()
        restarted.append(serve(port=server.port))

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(restart)
        run(server.target, count, retries=Retries(away_s=WAIT_S, first_contact_s=0.0))
        stopped.result(WAIT_S)
    assert len(restarted[0].received) == 1


@pytest.mark.parametrize("target", ["127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.1:2", "unix:/nowhere"])
def test_an_address_without_a_server_is_told_as_such(run: Run, target: str) -> None:
    """However the address is written, gRPC's words for it are known: nobody waits for a wrong one."""
    with pytest.raises(ServerUnreachableError):
        run(target, count, retries=Retries(away_s=1e6, first_contact_s=0.0))


def test_a_server_that_was_never_there_is_not_waited_for(serve: Serve, run: Run) -> None:
    """At first contact patience is short: a wrong address is told soon."""
    server = serve()
    server.stop()
    with pytest.raises(ServerUnreachableError) as missing:
        run(server.target, count, retries=Retries(away_s=1e6, first_contact_s=0.3))
    assert "attempts in " in missing.value.__notes__[0]


def test_a_closed_client_makes_no_call_again(serve: Serve) -> None:
    """Its calls in flight end as cancelled."""
    server = serve()
    server.may_answer.clear()
    client = Client(server.target, retries=QUICK)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.count, "docs")
        assert server.asked.wait(WAIT_S)
        client.close()
        with pytest.raises(NearshoreError, match="closed"):
            call.result(WAIT_S)
    server.may_answer.set()
    assert len(server.received) == 1


def test_a_client_closed_in_a_pause_says_so(serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that waited is not made again, and the error is one of ours."""
    server = serve(LOST)
    clients: list[Any] = []

    async def close_soon(_pause_s: float) -> None:
        await clients[0].close()

    pause = SimpleNamespace(sleep=lambda _pause_s: clients[0].close(), monotonic=time.monotonic)
    monkeypatch.setattr("nearshore.client.sync.time", pause)
    monkeypatch.setattr("nearshore.client.asynchronous.asyncio", SimpleNamespace(sleep=close_soon))

    def remembered(client: Any) -> Any:
        clients.append(client)
        return count(client)

    with pytest.raises(ClientClosedError, match=server.target):
        run(server.target, remembered)
    assert len(server.received) == 1


def test_a_call_may_be_interrupted_between_attempts(serve: Serve) -> None:
    """A task that is cancelled while its client waits makes no further attempt."""
    server = serve(*[STORE_AWAY._replace(retry_after_s=5.0)] * 2)

    async def cancel() -> None:
        async with AsyncClient(server.target) as client:
            task = asyncio.create_task(
                client.upsert("docs", [Document("a", "cat")], vectors=np.ones((1, 2), np.float32))
            )
            assert await asyncio.to_thread(server.refused.wait, WAIT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert len(server.received) == 1
