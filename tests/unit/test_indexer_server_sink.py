"""Waiting until a server's index shows what was written through it."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import pytest
from grpc import StatusCode

from nearshore.client import NO_RETRIES, AsyncClient, Document
from nearshore.errors import DeadlineError
from nearshore_indexer.server_sink import ServerSink
from tests.scripted_server import Refusal, ScriptedServer

STEP_S = 30  # so long the server lets each read wait
AWAY = Refusal(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", 1.0)


def behind(position: int) -> Refusal:
    """What a read is told that waited in vain for position 1,000."""
    return Refusal(StatusCode.DEADLINE_EXCEEDED, "READ_AFTER_TIMEOUT", facts={"position": str(position)})


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure comes STEP_S after the one before, without anybody waiting."""
    seconds = itertools.count(0, STEP_S)
    monkeypatch.setattr("nearshore_indexer.patience.time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    monkeypatch.setattr("nearshore_indexer.server_sink.PAUSE_S", 0.0)


def wait(*refusals: Refusal) -> list[str]:
    """Write, then wait until it is searchable; what was told."""
    told: list[str] = []
    server = ScriptedServer()

    async def write_and_wait() -> None:
        async with AsyncClient(server.target, retries=NO_RETRIES) as client:
            sink = ServerSink(client, "docs", "a:1", told.append)
            await sink.write([Document("a", "cat")], "request")
            server.refusals.extend(refusals)
            await sink.wait_searchable()

    try:
        asyncio.run(write_and_wait())
    finally:
        server.stop()
    return told


def test_an_index_that_stands_still_is_told_and_then_given_up() -> None:
    """Its disk may be full: whoever started the run must hear of it, and the run must end."""
    told = wait(*[behind(7)] * 11)
    assert told[0] == "the server at a:1 is late: refused; trying again for up to 300 s"
    assert len(told) == 10
    with pytest.raises(DeadlineError) as stuck:
        wait(*[behind(7)] * 12)
    assert stuck.value.metadata["position"] == "7"


def test_an_index_that_comes_nearer_is_waited_for() -> None:
    """However long it takes."""
    told = wait(*[behind(position) for position in range(1, 101)])
    assert len(told) == 100


def test_a_server_that_restarts_meanwhile_is_waited_for() -> None:
    """What was written is durable: nothing is lost while it is away."""
    told = wait(AWAY, AWAY)
    assert told[0] == "the server at a:1 does not answer: refused; trying again for up to 60 s"
