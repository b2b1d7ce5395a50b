"""What a caller learns of a call whose deadline passes: the server answers before the caller's own gRPC gives up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from nearshore import serving
from nearshore.assembly import open_store
from nearshore.client import Client, Document
from nearshore.errors import CommitUnknownError, NearshoreError
from nearshore.service import servicers
from nearshore.store.base import Store
from nearshore.store.errors import closed
from tests.servers import InProcessServer

TIMEOUT_S = 1.5
ONE = np.ones((1, 2), np.float32)
SAME_REQUEST_ID, LOOK = "with the same request_id", "Look whether it happened"
Call = Callable[[Client], object]


def create(client: Client) -> object:
    return client.create_collection("more", dimensions=2)


def drop(client: Client) -> None:
    client.delete_collection("docs")


def upsert(client: Client) -> object:
    return client.upsert("docs", [Document("b", "cat")], vectors=ONE)


def delete(client: Client) -> object:
    return client.delete("docs", ids=["a"])


def delete_by_filter(client: Client) -> object:
    return client.delete("docs", filter='lang = "en"')


@pytest.fixture(autouse=True)
def wide_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, an answer that is given before the margin arrives."""
    monkeypatch.setattr(servicers, "ANSWER_MARGIN_S", TIMEOUT_S)
    monkeypatch.setattr(servicers, "ANSWER_SHARE", 0.5)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """The store of the test's own server, as soon as that is open; no other server shares what is done to it."""
    opened: list[Store] = []

    def remember(*arguments: Any) -> Store:
        opened.append(open_store(*arguments))
        return opened[-1]

    monkeypatch.setattr(serving, "open_store", remember)
    return opened


@pytest.fixture
def server(start_server: Callable[..., InProcessServer], store: list[Store]) -> InProcessServer:
    """A server of the test's own, with one document."""
    running = start_server()
    with running.client() as client:
        client.create_collection("docs", dimensions=2)
        client.upsert("docs", [Document("a", "cat", metadata={"lang": "en"})], vectors=ONE)
        assert client.count("docs") == 1
    return running


@pytest.fixture
def hang() -> Iterator[Callable[..., Any]]:
    """A method of a store that does not answer until the test is over."""
    over = threading.Event()

    def hang(*_: Any) -> Any:
        over.wait()
        raise closed()

    yield hang
    over.set()


def refusal(server: InProcessServer, call: Call) -> NearshoreError:
    with server.client(timeout_s=TIMEOUT_S) as client, pytest.raises(NearshoreError) as caught:
        call(client)
    return caught.value


@pytest.mark.parametrize(
    ("call", "remedy"),
    [(upsert, SAME_REQUEST_ID), (delete, SAME_REQUEST_ID), (delete_by_filter, LOOK), (create, LOOK), (drop, LOOK)],
)
def test_a_write_that_is_not_durable_in_time_says_what_to_do(
    server: InProcessServer,
    store: list[Store],
    hang: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    remedy: str,
) -> None:
    """It may yet take effect: with a request_id it is repeated, without one somebody has to look."""
    monkeypatch.setattr(store[0], "write", lambda *_, **__: Future())
    for name in ("create_collection", "delete_collection"):
        monkeypatch.setattr(store[0], name, hang)
    error = refusal(server, call)
    assert error.reason == "WRITE_OUTCOME_PENDING"
    assert remedy in str(error)


@pytest.mark.parametrize(("call", "remedy"), [(upsert, SAME_REQUEST_ID), (delete_by_filter, LOOK), (create, LOOK)])
def test_a_commit_that_is_lost_says_what_to_do(
    server: InProcessServer, store: list[Store], monkeypatch: pytest.MonkeyPatch, call: Call, remedy: str
) -> None:
    """A call without a request_id is not told to repeat it with the same."""

    def lost(*_: Any) -> Any:
        raise CommitUnknownError

    def failed(*_: Any, **__: Any) -> Future[object]:
        write: Future[object] = Future()
        write.set_exception(CommitUnknownError())
        return write

    monkeypatch.setattr(store[0], "write", failed)
    monkeypatch.setattr(store[0], "create_collection", lost)
    error = refusal(server, call)
    assert error.reason == "COMMIT_OUTCOME_UNKNOWN"
    assert remedy in str(error)


@pytest.mark.parametrize(
    "call",
    [
        upsert,
        delete_by_filter,
        lambda client: client.get_collection("docs"),
        lambda client: client.list_collections(),
        lambda client: client.count("unknown"),
    ],
    ids=["upsert", "delete", "get", "list", "find"],
)
def test_a_call_that_asks_a_silent_store_says_that_nothing_was_done(
    server: InProcessServer, store: list[Store], hang: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """The reason is the server's, not that of the caller's gRPC, which cannot know."""
    for name in ("find_request", "heads", "get_collection", "list_collections"):
        monkeypatch.setattr(store[0], name, hang)
    error = refusal(server, call)
    assert error.reason == "DEADLINE_EXCEEDED"
    assert "Nothing was done" in str(error)
