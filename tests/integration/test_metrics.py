"""The metrics of real servers: counted while calls are answered, told while they load, work and stop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import structlog

from nearshore.client import NO_RETRIES, AsyncClient, Client, Document, logged_as
from nearshore.embedding.session import Session
from nearshore.errors import CollectionNotFoundError, InvalidRequestIdError, OverloadedError, UnavailableError
from nearshore.exit_codes import ExitCode
from nearshore.records import F32
from nearshore.store.sqlite import SqliteStore
from tests.ports import free_port
from tests.postgres import ABSENT, PostgresServer, programs
from tests.scraping import Scrape, scrape
from tests.servers import InProcessServer, ServerProcess

ServerStarter = Callable[..., ServerProcess]
WAIT_S = 30.0
EMBED, UPSERT = "EmbeddingService/Embed", "DocumentService/UpsertDocuments"


def calls(seen: Scrape, method: str, code: str = "OK") -> float:
    return seen.value("nearshore_calls_total", method=method, code=code)


def test_a_server_tells_what_it_does(server_process: ServerStarter) -> None:
    """Calls by code, an overload, tokens, rows and lag are there to be scraped, under the collections that exist."""
    port = free_port()
    process = server_process(NEARSHORE_METRICS__PORT=str(port), NEARSHORE_EMBEDDING__MAX_QUEUED_TOKENS="1024")
    assert process.wait_for("Serving metrics")["port"] == port
    address = process.address()
    with Client(address, retries=NO_RETRIES) as client, grpc.insecure_channel(address) as channel:
        client.wait_ready()
        client.create_collection("docs", model="tiny")
        client.upsert("docs", [Document("1", "a cat"), Document("2", "a dog"), Document("3", "a river")])
        client.upsert("docs", [Document("1", "a red bird")])
        client.delete("docs", ids=["2"])
        client.embed(["a cat and a dog"])
        assert len(client.search("docs", "a cat").hits) == 2
        with pytest.raises(OverloadedError):
            client.embed(["a cat and a dog"] * 150)  # 7 tokens each
        with pytest.raises(CollectionNotFoundError):
            client.search("nowhere", "a cat")
        raw: Any = channel.unary_unary(f"/nearshore.v1.{EMBED}")
        with pytest.raises(grpc.RpcError, match="not the protobuf message"):
            raw(b"no message")
        seen = scrape(port)
        client.delete_collection("docs")
        after = scrape(port)
    assert calls(seen, UPSERT) == 2
    assert calls(seen, EMBED) == 1
    assert calls(seen, EMBED, "RESOURCE_EXHAUSTED") == 1
    assert calls(seen, EMBED, "INVALID_ARGUMENT") == 1
    assert calls(seen, "SearchService/Search", "NOT_FOUND") == 1
    assert seen.value("nearshore_call_seconds_count", method=EMBED) == 3
    assert seen.value("nearshore_embedded_texts_total") == 6  # three and one written, one embedded, one query
    assert seen.value("nearshore_embedded_tokens_total") > 7
    assert seen.value("nearshore_queue_seconds_count", priority="interactive") == 4
    assert seen.value("nearshore_ready") == 1
    assert seen.value("nearshore_documents", collection="docs") == 2
    rows = {part: seen.value("nearshore_index_rows", collection="docs", part=part) for part in ("tail", "dead")}
    assert rows == {"tail": 4, "dead": 2}
    assert seen.value("nearshore_feed_lag_positions", collection="docs") == 0
    assert seen.value("nearshore_feed_lag_seconds", collection="docs") == 0
    assert seen.value("nearshore_store_contact_age_seconds") < WAIT_S
    (build,) = seen.labels("nearshore_build_info")
    assert build["model"] == "tiny"
    assert seen.value("nearshore_model_bytes", model="tiny") > 0
    assert not after.labels("nearshore_documents")


def test_a_server_tells_how_its_vector_cache_does(server_process: ServerStarter) -> None:
    """With embedding.cache_bytes a text that was embedded is not embedded again; hits, misses and bytes are told."""
    port = free_port()
    process = server_process(NEARSHORE_METRICS__PORT=str(port), NEARSHORE_EMBEDDING__CACHE_BYTES="100000")
    with Client(process.address(), retries=NO_RETRIES) as client:
        client.wait_ready()
        first = client.embed(["a cat", "a dog"])
        second = client.embed(["a dog", "a river", "a cat"])
        seen = scrape(port)
    np.testing.assert_array_equal(second.vectors[[2, 0]], first.vectors)
    assert seen.value("nearshore_embedded_texts_total") == 3
    assert seen.value("nearshore_vector_cache_misses_total") == 3
    assert seen.value("nearshore_vector_cache_hits_total") == 2
    assert 0 < seen.value("nearshore_vector_cache_bytes") <= 100_000


def test_refusals_are_counted_while_a_server_waits_for_its_store(server_process: ServerStarter) -> None:
    """By method and code, and with their reason in the log; a method that does not exist makes no label."""
    port = free_port()
    process = server_process(
        NEARSHORE_METRICS__PORT=str(port), NEARSHORE_STORE__URL="postgresql://nobody@127.0.0.1:1/nothing"
    )
    address = f"127.0.0.1:{process.wait_for('Waiting for the store')['port']}"
    with Client(address, retries=NO_RETRIES) as client, grpc.insecure_channel(address) as channel:
        for _ in range(2):
            with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1/nothing"):
                client.search("docs", "a cat")
        unknown: Any = channel.unary_unary("/nearshore.v1.SearchService/Guess")
        with pytest.raises(grpc.RpcError) as refused:
            unknown(b"")
        seen = scrape(port)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert calls(seen, "SearchService/Search", "UNAVAILABLE") == 2
    assert not any("Guess" in each["method"] for each in seen.labels("nearshore_calls_total"))
    answered = process.wait_for("Answered")
    assert (answered["code"], answered["reason"]) == ("UNAVAILABLE", "STORE_UNAVAILABLE")


def test_scrapes_are_answered_under_load(server_process: ServerStarter) -> None:
    """While calls are answered and refused, each scrape is whole, and in the end every call was counted once."""
    port, rounds = free_port(), 40
    process = server_process(NEARSHORE_METRICS__PORT=str(port))
    with Client(process.address()) as client, ThreadPoolExecutor(8) as pool:
        client.wait_ready()
        client.create_collection("docs", model="tiny")

        def work(number: int) -> None:
            client.upsert("docs", [Document(f"{number}-{n}", f"cat {n}") for n in range(20)])
            client.embed([f"a cat and {number} dogs"] * 20)

        working = [pool.submit(work, number) for number in range(rounds)]
        counted = []
        while not all(each.done() for each in working):
            counted.append(calls(scrape(port), EMBED))
        for each in working:
            each.result()
        seen = scrape(port)
    assert counted == sorted(counted)
    assert (calls(seen, EMBED), calls(seen, UPSERT)) == (rounds, rounds)
    assert seen.value("nearshore_documents", collection="docs") == 20 * rounds


def test_scrapes_are_answered_while_a_server_stops(
    start_server: Callable[..., InProcessServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to stop, it tells that it is not ready, and what it still works on, until that is answered."""
    running, may_run, run = threading.Event(), threading.Event(), Session.run_tokens

    def held(session: Session, texts: Sequence[Sequence[int]]) -> F32:
        running.set()
        assert may_run.wait(WAIT_S)
        return run(session, texts)

    monkeypatch.setattr(Session, "run_tokens", held)
    may_run.set()
    port = free_port()
    server = start_server(metrics__port=port)
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        running.clear()
        may_run.clear()
        pending = pool.submit(client.embed, ["a cat"])
        assert running.wait(WAIT_S)
        before = scrape(port)
        server.ask_to_stop()
        stopping = scrape(port)
        while stopping.value("nearshore_ready"):  # the signal is on its way
            stopping = scrape(port)
        may_run.set()
        assert pending.result().vectors.shape == (1, 32)
    assert server.stop() is ExitCode.OK
    assert (before.value("nearshore_ready"), before.value("nearshore_calls_in_flight")) == (1, 1)
    assert stopping.value("nearshore_calls_in_flight") == 1


def test_a_metrics_port_in_use_ends_the_start(server_process: ServerStarter, tmp_path: Path) -> None:
    """The last line of the log says which setting to change, and the code is that of a lack, not of a crash."""
    port = free_port()
    first = server_process(NEARSHORE_METRICS__PORT=str(port))
    first.address()
    second = server_process(NEARSHORE_METRICS__PORT=str(port), NEARSHORE_DATA_DIR=str(tmp_path / "other"))
    entry = second.wait_for(f"Cannot serve the metrics on port {port} of 127.0.0.1: the port is in use.")
    assert entry["reason"] == "METRICS_PORT_IN_USE"
    assert "metrics.port" in entry["remedy"]
    assert second.wait() == ExitCode.UNAVAILABLE


def test_a_request_id_leads_from_the_program_to_the_log(server_process: ServerStarter) -> None:
    """The id that a program gives its calls is on their lines and in their errors; another block's or call's is not."""
    process = server_process(NEARSHORE_LOG__LEVEL="debug")
    with Client(process.address()) as client:
        client.wait_ready()
        with logged_as("order-4711"):
            client.embed(["a cat"])
            with pytest.raises(CollectionNotFoundError) as refused:
                client.search("nowhere", "a cat")
        client.tokenize(["a cat"])
    answered = [process.wait_for("Answered") for _ in range(3)]
    named = [(entry["method"], entry["code"], entry["request_id"] == "order-4711") for entry in answered]
    assert named == [
        (EMBED, "OK", True),
        ("SearchService/Search", "NOT_FOUND", True),
        ("EmbeddingService/Tokenize", "OK", False),
    ]
    assert refused.value.metadata["request_id"] == "order-4711"
    assert answered[2]["request_id"]


def test_tasks_have_request_ids_of_their_own(server: InProcessServer) -> None:
    """Calls of one AsyncClient that overlap carry the id of the block that made them."""

    async def refused_as(client: AsyncClient, request_id: str) -> str:
        with logged_as(request_id), pytest.raises(CollectionNotFoundError) as refused:
            await client.count("nowhere")
        return refused.value.metadata["request_id"]

    async def use() -> list[str]:
        async with AsyncClient(server.address) as client:
            return await asyncio.gather(*(refused_as(client, f"task-{n}") for n in range(8)))

    assert asyncio.run(use()) == [f"task-{n}" for n in range(8)]


def test_lines_from_threads_carry_the_request_id(
    start_server: Callable[..., InProcessServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever thread works for a call, what it logs is found by the call's id."""
    write = SqliteStore.write

    def telling(store: SqliteStore, *arguments: Any, **options: Any) -> Any:
        structlog.get_logger("test").warning("From a thread", thread=threading.current_thread().name)
        return write(store, *arguments, **options)

    server = start_server()
    with server.client() as client:
        client.create_collection("docs", model="tiny")
        monkeypatch.setattr(SqliteStore, "write", telling)
        with logged_as("order-4711"):
            client.upsert("docs", [Document("1", "a cat")])
    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (entry,) = [each for each in entries if each["event"] == "From a thread"]
    assert entry["thread"] != "server"
    assert entry["request_id"] == "order-4711"


def test_an_id_that_cannot_be_logged_is_refused() -> None:
    """Before any call is made: a server would pass it over in silence."""
    for unfit in ("", "two words", "ä", "x" * 129):
        with pytest.raises(InvalidRequestIdError), logged_as(unfit):
            pass


def until(port: int, holds: Callable[[Scrape], bool]) -> Scrape:
    """The first scrape for which it holds."""
    while not holds(seen := scrape(port)):
        pass
    return seen


def test_replicas_tell_what_they_show_and_that_the_store_is_away(server_process: ServerStarter, tmp_path: Path) -> None:
    """A replica counts what another wrote; without PostgreSQL it is scraped as ever, ready, its contact ageing."""
    if programs() is None:
        pytest.skip(ABSENT)
    with PostgresServer(options=["fsync = off"]) as postgres:
        url, ports = postgres.create_database(), [free_port(), free_port()]
        processes = [
            server_process(
                NEARSHORE_STORE__URL=url,
                NEARSHORE_DATA_DIR=str(tmp_path / f"replica-{port}"),
                NEARSHORE_METRICS__PORT=str(port),
            )
            for port in ports
        ]
        addresses = [process.address() for process in processes]
        with Client(addresses[0], retries=NO_RETRIES) as writer, Client(addresses[1], retries=NO_RETRIES) as other:
            writer.wait_ready()
            other.wait_ready()
            writer.create_collection("docs", model="tiny")
            writer.upsert("docs", [Document("1", "a cat"), Document("2", "a dog")])
            shown = until(ports[1], lambda seen: {"collection": "docs"} in seen.labels("nearshore_documents"))
            until(ports[1], lambda seen: seen.value("nearshore_documents", collection="docs") == 2)
            postgres.stop("immediate")
            away = until(ports[1], lambda seen: seen.value("nearshore_store_contact_age_seconds") > 1)
            with pytest.raises(UnavailableError):
                other.upsert("docs", [Document("3", "a river")])
            refused = scrape(ports[1])
            postgres.start()
            until(ports[1], lambda seen: seen.value("nearshore_store_contact_age_seconds") < 1)
    assert shown.value("nearshore_feed_lag_seconds", collection="docs") >= 0
    assert away.value("nearshore_ready") == 1
    assert away.value("nearshore_documents", collection="docs") == 2
    assert calls(refused, UPSERT, "UNAVAILABLE") == 1
