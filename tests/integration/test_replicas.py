"""Several servers on one PostgreSQL, as processes of their own: what one writes the others show, and what they do
while PostgreSQL is away.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import RpcError, StatusCode, insecure_channel
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from nearshore.client import NO_RETRIES, Client, Document, Query
from nearshore.errors import NearshoreError
from nearshore.exit_codes import ExitCode
from nearshore.replica import Replicas
from nearshore.v1 import document_service_pb2 as documents_pb
from nearshore.v1.document_service_pb2_grpc import DocumentServiceStub
from nearshore.wire import DETAILS_KEY
from tests.ports import free_port
from tests.postgres import ABSENT, PostgresServer, programs, standby_missing
from tests.servers import START_S, InProcessServer, ServerProcess

AWAY = "STORE_UNAVAILABLE"
Start = Callable[..., ServerProcess]
StartBare = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL beside the one that all tests share."""
    if programs() is None:
        pytest.skip(ABSENT)
    with PostgresServer(options=["fsync = off"]) as running:
        yield running


@pytest.fixture
def postgres(own_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A PostgreSQL that the test may stop."""
    yield own_postgres
    if not (own_postgres.data / "postmaster.pid").exists():
        own_postgres.start()


@pytest.fixture
def start(server_process: StartBare, tmp_path: Path) -> Start:
    """A function that starts a replica on a PostgreSQL URL, in an empty folder, with NEARSHORE_* variables."""
    started: list[str] = []

    def start(url: str, **environment: str) -> ServerProcess:
        started.append(url)
        folder = str(tmp_path / f"replica-{len(started)}")
        return server_process(NEARSHORE_STORE__URL=url, NEARSHORE_DATA_DIR=folder, **environment)

    return start


@pytest.fixture
def clients(start: Start, postgres_url: str) -> Iterator[Sequence[Client]]:
    """A client of each of two replicas, neither of which carries tokens by itself or repeats a failed call."""
    with connected([start(postgres_url) for _ in range(2)]) as connections:
        yield connections.clients


class connected:  # noqa: N801 -- reads as a function
    """Clients of these servers, which show every refusal at once; they are closed at the end of the block."""

    def __init__(self, servers: Sequence[ServerProcess]) -> None:
        self.addresses = [server.address() for server in servers]
        self.clients = [Client(address, retries=NO_RETRIES, read_own_writes=False) for address in self.addresses]
        for server, client in zip(servers, self.clients, strict=True):
            try:
                client.wait_ready()
            except NearshoreError as error:
                raise AssertionError(f"{error}\n{''.join(server.lines)}") from error

    def together(self) -> Client:
        """A client of all in turn, which carries the tokens of its writes."""
        self.clients.append(Client("ipv4:" + ",".join(self.addresses), retries=NO_RETRIES))
        return self.clients[-1]

    def __enter__(self) -> connected:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()


def documents(*ids: str) -> list[Document]:
    return [Document(each, f"the text of {each}", metadata={"id": each}) for each in ids]


def refused(call: Callable[[], object]) -> str:
    """The reason with which a call is refused."""
    with pytest.raises(NearshoreError) as caught:
        call()
    return caught.value.reason


def succeeds(call: Callable[[], object], *, but: str) -> bool:
    """Whether a call succeeds; it may be refused with the reason `but`."""
    try:
        call()
    except NearshoreError as error:
        if error.reason != but:
            raise
        return False
    return True


def test_a_client_reads_its_writes_on_every_replica(start: Start, postgres_url: str) -> None:
    """Search, Get, List and Count with the token of a write show it, whoever took it and whoever answers."""
    with connected([start(postgres_url) for _ in range(2)]) as servers, servers.together() as client:
        client.create_collection("docs", model="tiny")
        for number in range(12):
            client.upsert("docs", documents(f"a-{number}", f"b-{number}"))
            client.delete("docs", ids=[f"b-{number}"])
            expected = {f"a-{each}" for each in range(number + 1)}
            for _ in range(2):  # calls go to the replicas in turn
                assert client.count("docs") == len(expected)
                assert {each.id for each in client.list_documents("docs").documents} == expected
                assert not client.get("docs", [f"b-{number}"]).documents
                hits = client.search("docs", Query(text="the text", limit=100, exact=True)).hits
                assert {hit.document.id for hit in hits} == expected


def test_what_one_replica_does_to_collections_holds_for_the_others(clients: Sequence[Client]) -> None:
    """A collection created elsewhere can be used at once, and a new one is not mistaken for its old namesake."""
    here, there = clients
    here.create_collection("docs", model="tiny")
    assert there.search("docs", "anything").hits == []
    there.upsert("docs", documents("a"))
    here.delete_collection("docs")
    here.create_collection("docs", dimensions=3)
    there.upsert("docs", documents("b"), vectors=np.eye(1, 3, dtype=np.float32))
    assert there.get_collection("docs").dimensions == 3
    assert [each.name for each in there.list_collections()] == ["docs"]
    here.delete_collection("docs")
    assert refused(lambda: there.get_collection("docs")) == "COLLECTION_NOT_FOUND"
    assert refused(lambda: there.search("docs", "anything")) == "COLLECTION_NOT_FOUND"
    here.create_collection("more", dimensions=3)
    there.count("more")
    here.delete_collection("more")
    while succeeds(lambda: there.count("more"), but="COLLECTION_NOT_FOUND"):
        pass  # until the next look at the store


def test_writes_arrive_without_a_token(clients: Sequence[Client]) -> None:
    """Each replica follows the store by itself."""
    here, there = clients
    here.create_collection("docs", model="tiny")
    here.upsert("docs", documents("a", "b"))
    while there.count("docs") < 2:
        pass
    here.delete("docs", filter='id = "a"')
    while there.count("docs") > 1:
        pass


def test_replicas_outlive_their_postgresql(start: Start, postgres: PostgresServer) -> None:
    """While it is away they answer from memory and refuse writes; when it is back they catch up by themselves."""
    url = postgres.create_database()
    with connected([start(url) for _ in range(2)]) as servers, servers.together() as client:
        plain = servers.clients[:2]
        client.create_collection("docs", model="tiny")
        client.upsert("docs", documents("a", "b"))
        while any(each.count("docs") < 2 for each in plain):
            pass
        postgres.stop("immediate")
        for _ in range(4):
            assert client.count("docs") == 2  # with the token of the last write, on both
            assert len(client.search("docs", "the text of a").hits) == 2
            assert client.get("docs", ["a"]).documents[0].text == "the text of a"
        for each in plain:
            each.wait_ready()  # whoever can search stays ready
            refuses_what_needs_the_store(each)
            assert [one.name for one in each.list_collections()] == ["docs"]
        assert_retry_hint(servers.addresses[0])
        postgres.start()
        while not succeeds(lambda: client.upsert("docs", documents("c")), but=AWAY):
            pass
        for _ in range(4):
            assert client.count("docs") == 3


def refuses_what_needs_the_store(client: Client) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.upsert("docs", documents("c")),
        lambda: client.delete("docs", ids=["a"]),
        lambda: client.delete("docs", filter='id = "a"'),
        lambda: client.create_collection("more", dimensions=2),
        lambda: client.delete_collection("docs"),
        lambda: client.count("unknown"),
    ]
    assert [refused(call) for call in calls] == [AWAY] * len(calls)


def assert_retry_hint(address: str) -> None:
    """A refused write tells a program the reason, and when to try again."""
    request = documents_pb.DeleteDocumentsRequest(collection="collections/docs", ids=["a"])
    with insecure_channel(address) as channel, pytest.raises(RpcError) as caught:
        DocumentServiceStub(channel).DeleteDocuments(request)
    assert caught.value.code() is StatusCode.UNAVAILABLE
    trailing: Any = caught.value.trailing_metadata()
    status = Status.FromString(dict(trailing)[DETAILS_KEY])
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, retry.retry_delay.seconds > 0) == (AWAY, True)


def test_a_hanging_postgresql_holds_up_no_reader(start: Start, postgres: PostgresServer) -> None:
    """While it neither answers nor refuses, as on a dead disk, only writes wait, and those no longer than they may.

    However many come, they leave room for those who read; also for those who read what they wrote before.
    """
    server = start(postgres.create_database(), NEARSHORE_SERVER__MAX_CONCURRENT_CALLS="20")
    with connected([server]) as servers, servers.together() as client:
        client.create_collection("docs", model="tiny")
        client.upsert("docs", documents("a", "b"))
        while client.count("docs") < 2:
            pass
        with (
            postgres.frozen(),
            Client(servers.addresses[0], retries=NO_RETRIES, timeout_s=3.0) as hasty,
            ThreadPoolExecutor(40) as threads,
        ):
            writes = [threads.submit(refused, lambda: hasty.upsert("docs", documents("c"))) for _ in range(40)]
            assert next(as_completed(writes)).result() == "TOO_MANY_STORE_CALLS"
            for _ in range(10):
                assert len(client.search("docs", "the text of a").hits) == 2
                assert client.get("docs", ["a"]).documents
                assert client.embed(["a long text " * 1_000]).vectors.shape == (1, 32)
        assert all(write.result() for write in writes)
        while not succeeds(lambda: client.upsert("docs", documents("d")), but=AWAY):
            pass


def test_calls_go_on_while_creations_hang(
    start_server: Callable[..., InProcessServer], postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for a synchronous standby that is missing, others are answered."""
    monkeypatch.setattr("nearshore.store.writer.CLOSE_GRACE_S", 0.0)
    url = postgres.create_database()
    server = start_server(store__url=url, server__grace_s=0.0)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with server.client() as client, postgres.connect() as admin, ThreadPoolExecutor(40) as pool:
        client.create_collection("docs", dimensions=3)
        with standby_missing(url):
            names = [f"new-{number}" for number in range(40)]
            creations = [pool.submit(refused, partial(client.create_collection, name, dimensions=3)) for name in names]
            while not admin.execute(waiting).fetchall():
                pass
            assert client.get_collection("docs").dimensions == 3
            assert [each.name for each in client.list_collections()] == ["docs"]
            assert refused(lambda: client.count("unknown")) == "COLLECTION_NOT_FOUND"
            assert server.stop() is ExitCode.OK
        assert all(creation.result() for creation in creations)


def test_a_replica_waits_for_its_postgresql(start: Start, postgres: PostgresServer) -> None:
    """Started before PostgreSQL, or while it is away, a server says so and goes on by itself once it is there."""
    url = postgres.create_database()
    first = start(url)
    with Client(first.address()) as client:
        client.create_collection("docs", model="tiny")
        client.upsert("docs", documents("a", "b"))
    postgres.stop()
    early = start(url)
    address = f"127.0.0.1:{early.wait_for('Waiting for the store')['port']}"
    assert early.wait_for("PostgreSQL cannot be reached yet")["remedy"]
    with Client(address, retries=NO_RETRIES) as client, insecure_channel(address) as channel:
        assert refused(lambda: client.count("docs")) == AWAY
        health = HealthStub(channel)
        assert health.Check(HealthCheckRequest(service="liveness")).status == HealthCheckResponse.SERVING
        assert health.Check(HealthCheckRequest()).status == HealthCheckResponse.NOT_SERVING
    postgres.start()
    assert early.address() == address
    with Client(address) as client:
        client.wait_ready()
        assert client.count("docs") == 2
    assert early.wait_for("collection ready")["rows"] == 2


def test_a_server_lives_until_it_serves(
    start_server: Callable[..., InProcessServer], postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has said that it waits for PostgreSQL, its liveness is answered while it opens all the rest."""
    url, port = postgres.create_database(), free_port()
    postgres.stop()

    def liveness() -> Any:
        with insecure_channel(f"127.0.0.1:{port}") as channel:
            request = HealthCheckRequest(service="liveness")
            return HealthStub(channel).Check(request, timeout=START_S, wait_for_ready=True).status

    said: list[Any] = []
    open_replicas = Replicas.open

    def told(*arguments: Any) -> Replicas:
        said.append(liveness())
        return open_replicas(*arguments)

    monkeypatch.setattr(Replicas, "open", told)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start_server, server__port=port, store__url=url)
        assert liveness() == HealthCheckResponse.SERVING
        postgres.start()
        with starting.result().client() as client:
            assert client.list_collections() == []
    assert said == [HealthCheckResponse.SERVING]


def test_a_broken_model_is_not_waited_with(start: Start, postgres: PostgresServer) -> None:
    """A server that could never serve says so at once, not when PostgreSQL is there."""
    postgres.stop()
    broken = start(postgres.url(), NEARSHORE_EMBEDDING__MODEL="missing")
    assert broken.wait() == ExitCode.NOT_FOUND
    assert '"reason": "MODEL_NOT_FOUND"' in broken.lines[-1]


def test_a_replica_that_waits_can_be_stopped(start: Start, postgres: PostgresServer) -> None:
    """A rollout to a wrong address can be taken back in order."""
    postgres.stop()
    waiting = start(postgres.url())
    waiting.wait_for("PostgreSQL cannot be reached yet")
    waiting.process.send_signal(signal.SIGTERM)
    assert waiting.wait() == ExitCode.OK


def test_what_waiting_does_not_mend_ends_the_server(start: Start, postgres_url: str) -> None:
    """Refused credentials, and tables of a later release: one line says what is wrong, none shows the password."""
    stranger = start(postgres_url.replace("postgres@", "stranger:hunter2@"))
    assert stranger.wait() == ExitCode.USAGE
    assert "hunter2" not in "".join(stranger.lines)
    first = start(postgres_url)
    first.address()
    first.process.send_signal(signal.SIGTERM)
    assert first.wait() == ExitCode.OK
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE nearshore_schema SET version = 1000, compatible = 1000")
    older = start(postgres_url)
    assert older.wait() == ExitCode.UNAVAILABLE
    assert '"reason": "STORE_FORMAT"' in older.lines[-1]


def test_the_log_tells_what_an_acknowledged_write_survives(start: Start, postgres_url: str) -> None:
    """The line of the start speaks of PostgreSQL's settings, not of SQLite's."""
    durability = start(postgres_url).wait_for("Serving")["durability"]
    assert "PostgreSQL" in durability or "synchronous" in durability
