"""Which arguments both clients refuse before anything is sent, and that they say which one and what it takes."""

from __future__ import annotations

import asyncio
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nearshore.client import AsyncClient, Client, Document, Parts, Query, Retries
from nearshore.errors import InvalidMetadataError
from nearshore.v1 import document_service_pb2 as documents_pb
from nearshore.v1 import search_service_pb2 as search_pb
from tests.scripted_server import ScriptedServer

Call = Callable[[Any], Any]  # the methods of a client have the same names in both
Refused = Callable[..., str]
GOOD = Document("a", "cat")
VECTORS = np.ones((1, 3), "float32")
# Method, parameter, what one item of it is, and the other arguments.
LISTS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("upsert", "documents", "Document", {"collection": "docs"}),
    ("get", "ids", "str", {"collection": "docs"}),
    ("delete", "ids", "str", {"collection": "docs"}),
    ("batch_search", "queries", "Query", {"collection": "docs"}),
    ("embed", "texts", "str", {}),
    ("rerank", "texts", "str", {"query": "cat"}),
    ("tokenize", "texts", "str", {}),
]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    """A server that hears whatever is sent."""
    started = ScriptedServer()
    yield started
    started.stop()


@pytest.fixture(params=["blocking", "asyncio"])
def refused(request: pytest.FixtureRequest, server: ScriptedServer) -> Refused:
    """A function that makes a call with one of the clients, sees that nothing is sent, and returns the error's text."""

    async def awaited(call: Call) -> None:
        async with AsyncClient(server.target) as client:
            await call(client)

    def make(call: Call) -> None:
        if request.param == "asyncio":
            asyncio.run(awaited(call))
        else:
            with Client(server.target) as client:
                call(client)

    def refused(call: Call, *kinds: type[Exception]) -> str:
        with pytest.raises(kinds) as error:
            make(call)
        assert not server.received
        return str(error.value)

    return refused


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_the_table_names_every_parameter_that_takes_a_list(client: type[object]) -> None:
    """A new one is to be tested as well."""
    found = {
        (name, parameter.name)
        for name, method in inspect.getmembers(client, inspect.isfunction)
        for parameter in inspect.signature(method).parameters.values()
        if not name.startswith("_")
        and ("Sequence" in str(parameter.annotation) or "Iterable" in str(parameter.annotation))
    }
    streamed = {("embed_stream", "batches")}  # read one by one; tests/integration/test_embed_stream.py
    assert found - streamed == {(method, parameter) for method, parameter, _, _ in LISTS}


@pytest.mark.parametrize("one", ["12", b"12", ""], ids=repr)
@pytest.mark.parametrize(("method", "parameter", "item", "others"), LISTS, ids=lambda value: str(value)[:12])
def test_one_text_is_not_a_list_of_its_letters(
    refused: Refused, method: str, parameter: str, item: str, others: dict[str, Any], one: str | bytes
) -> None:
    """A text or bytes where several items are wanted is refused, with what to write instead; "12" deletes no "1"."""
    told = refused(lambda client: getattr(client, method)(**others, **{parameter: one}), TypeError)
    assert told == f"{parameter} is one {type(one).__name__}; it takes a list: {parameter}=[{one!r}]."


@pytest.mark.parametrize("given", [{"a"}, frozenset({"a"}), {"a": "b"}], ids=repr)
@pytest.mark.parametrize(
    ("method", "parameter", "item", "others"),
    [each for each in LISTS if each[1] != "ids"],
    ids=lambda value: str(value)[:12],
)
def test_what_has_no_order_is_no_list(
    refused: Refused, method: str, parameter: str, item: str, others: dict[str, Any], given: object
) -> None:
    """A set or dict where the answer goes by the order of the items is refused, with what it takes."""
    told = refused(lambda client: getattr(client, method)(**others, **{parameter: given}), TypeError)
    assert told.startswith(f"{parameter} is {given!r}; it takes a list of {item}")


@pytest.mark.parametrize(("method", "parameter", "item", "others"), LISTS, ids=lambda value: str(value)[:12])
def test_each_item_of_a_list_has_its_type(
    refused: Refused, method: str, parameter: str, item: str, others: dict[str, Any]
) -> None:
    """What is no list, and the item that is of another type, are named, with the type that is wanted."""
    told = refused(lambda client: getattr(client, method)(**others, **{parameter: 5}), TypeError)
    assert told.startswith(f"{parameter} is 5; it takes a list of {item}")
    good = GOOD if parameter == "documents" else "a"
    told = refused(lambda client: getattr(client, method)(**others, **{parameter: [good, {"id": "x"}]}), TypeError)
    assert told.startswith(f"{parameter}[1] is {{'id': 'x'}}; it takes {item}")


def test_any_iterable_of_ids_is_a_list(server: ScriptedServer) -> None:
    """What gives its items one by one is read once, and all of them are sent; ids may have no order."""
    with Client(server.target) as client:
        client.delete("docs", ids=(each for each in ("1", "2")))  # type: ignore[arg-type]
        client.delete("docs", ids=np.array(["1", "2"]))  # type: ignore[arg-type]
        client.delete("docs", ids={"1", "2"})  # type: ignore[arg-type]
    sent = [documents_pb.DeleteDocumentsRequest.FromString(each.request) for each in server.received]
    server.received.clear()
    assert [sorted(each.ids) for each in sent] == [["1", "2"]] * 3


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda client: client.upsert("docs", [GOOD, Document(5, "x")]), "documents[1].id is 5; it takes str."),  # type: ignore[arg-type]
        (lambda client: client.upsert("docs", [Document("a", None)]), "documents[0].text is None; it takes str."),  # type: ignore[arg-type]
        (lambda client: client.upsert("docs", [Document("a", b"abc")]), "documents[0].text is b'abc'; it takes str."),  # type: ignore[arg-type]
        (lambda client: client.upsert("docs", [Document("a", "x", metadata={b"k": 1})]), "documents[0].metadata is {b"),  # type: ignore[dict-item]
        (lambda client: client.upsert("docs", [Document("a", "x", metadata=[1])]), "documents[0].metadata is [1]"),  # type: ignore[arg-type]
        (lambda client: client.upsert("docs", [Document("a", "x", metadata={5: "x"})]), "documents[0].metadata is {5"),  # type: ignore[dict-item]
        (lambda client: client.upsert("docs", [GOOD], vectors=[[1.0]]), "vectors is [[1.0]]; it takes a numpy array"),
        (lambda client: client.upsert("docs", [GOOD], vectors=np.array([["x"]])), "vectors is array([['x']]"),
        (lambda client: client.upsert("docs", [GOOD, GOOD], vectors=np.ones(3)), "vectors has the shape (3,)"),
        (lambda client: client.upsert("docs", [GOOD], vectors=VECTORS, fingerprint=5), "fingerprint is 5"),
        (lambda client: client.upsert("docs", [GOOD], request_id=5), "request_id is 5; it takes str"),
        (lambda client: client.upsert("docs", [GOOD], truncation="nope"), "truncation is 'nope'; it takes 'cut_end'"),
        (lambda client: client.embed(["a"], truncation=[]), "truncation is []; it takes 'cut_end' or 'cut_start'"),
        (lambda client: client.embed(["a"], special_tokens="nope"), "special_tokens is 'nope'; it takes 'bundle'"),
        (lambda client: client.embed(["a"], model=5), "model is 5; it takes str."),
        (lambda client: client.embed(["a"], prompt=5), "prompt is 5; it takes str"),
        (lambda client: client.embed(["a"], dimensions="3"), "dimensions is '3'; it takes int of 32 bits"),
        (lambda client: client.embed(["a"], normalize="yes"), "normalize is 'yes'; it takes bool"),
        (lambda client: client.rerank(["a"], ["b"]), "query is ['a']; it takes str."),
        (lambda client: client.rerank("a", ["b"], model=5), "model is 5; it takes str."),
        (lambda client: client.rerank("a", ["b"], limit="3"), "limit is '3'; it takes int of 32 bits"),
        (lambda client: client.rerank("a", ["b"], truncation="nope"), "truncation is 'nope'; it takes 'cut_end' or"),
        (lambda client: client.create_collection(5), "name is 5; it takes str."),
        (lambda client: client.create_collection("a", metric="l2"), "metric is 'l2'; it takes 'cosine' or 'dot' or"),
        (lambda client: client.create_collection("a", index_kind=1), "index_kind is 1; it takes 'auto' or 'exact' or"),
        (lambda client: client.get_collection(None), "name is None; it takes str."),
        (lambda client: client.count(None), "collection is None; it takes str."),
        (lambda client: client.count("docs", filter=4), "filter is 4; it takes str"),
        (lambda client: client.count("docs", filter=b"a"), "filter is b'a'; it takes str"),
        (lambda client: client.wait_ready("5"), "timeout_s is '5'; it takes a number of seconds."),
        (lambda client: client.wait_ready(timeout_s=math.nan), "timeout_s is nan; it takes seconds, 0.001 or more,"),
        (lambda client: client.delete("docs", filter=4), "filter is 4; it takes str"),
        (lambda client: client.list_documents("docs", page_size=2**40), "page_size is 1099511627776; it takes int of"),
        (lambda client: client.get("docs", ["a"], parts={"text": True}), "parts is {'text': True}; it takes Parts."),
        (lambda client: client.get("docs", ["a"], parts=Parts(text="no")), "parts.text is 'no'; it takes bool"),  # type: ignore[arg-type]
        (lambda client: client.search("docs", {"text": "a"}), "query is {'text': 'a'}; it takes Query or str."),
        (lambda client: client.search("docs", Query("a", limit=2**40)), "query.limit is 1099511627776; it takes int"),
        (lambda client: client.search("docs", Query("a", filter=4)), "query.filter is 4; it takes str"),  # type: ignore[arg-type]
        (lambda client: client.search("docs", Query(5)), "query.text is 5; it takes str"),  # type: ignore[arg-type]
        (lambda client: client.search("docs", Query(b"a")), "query.text is b'a'; it takes str"),  # type: ignore[arg-type]
        (lambda client: client.search("docs", Query(document_id=5)), "query.document_id is 5; it takes str"),  # type: ignore[arg-type]
        (lambda client: client.search("docs", Query(vector=[1.0])), "query.vector is [1.0]; it takes a numpy array"),  # type: ignore[arg-type]
        (lambda client: client.search("docs", Query(vector=np.ones((2, 3)))), "query.vector has the shape (2, 3)"),  # type: ignore[arg-type]
        (lambda client: client.search("docs", Query("a", truncation="nope")), "query.truncation is 'nope'; it takes"),  # type: ignore[arg-type]
        (lambda client: client.batch_search("docs", ["a", Query("a", offset="1")]), "queries[1].offset is '1'; it"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_an_argument_that_no_request_can_hold_is_named(refused: Refused, call: Call, told: str) -> None:
    """A TypeError or ValueError says which field is what, and what it takes."""
    assert refused(call, TypeError, ValueError).startswith(told)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        (Query("bananas", document_id="p2"), ["text", "document_id"]),
        (Query("", vector=VECTORS[0]), ["text", "vector"]),
        (Query("bananas", vector=VECTORS[0], document_id=""), ["text", "vector", "document_id"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_query_asks_one_thing(refused: Refused, query: Query, fields: list[str]) -> None:
    """Of several that are given none is dropped without a word: all are named, alone and in a batch."""

    def told(place: str) -> str:
        named = " and ".join(f"{place}.{field}" for field in fields)
        return f"{named} are given; a query takes exactly one of text, vector, document_id."

    assert refused(lambda client: client.search("docs", query), ValueError) == told("query")
    assert refused(lambda client: client.batch_search("docs", ["a", query]), ValueError) == told("queries[1]")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda client: client.upsert("docs", [GOOD, Document("a", "\ud800")]), "documents[1].text"),
        (lambda client: client.upsert("docs", [Document("a", "x", metadata={"a": "\ud800"})]), "documents[0].metadata"),
        (lambda client: client.embed(["a", "\ud800"]), "texts"),
        (lambda client: client.rerank("\ud800", ["a"]), "query"),
        (lambda client: client.search("\ud800", "a"), "collection"),
        (lambda client: client.search("docs", "\ud800"), "query.text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text_that_utf8_cannot_hold_is_named(refused: Refused, call: Call, name: str) -> None:
    """Half a surrogate pair, such as Python makes of bytes that are not UTF-8, stays the error that it is."""
    assert refused(call, UnicodeEncodeError).endswith(f": {name} takes text that UTF-8 can hold")


def test_metadata_that_no_document_can_carry_is_named_by_its_key(refused: Refused) -> None:
    """With the types that it may have."""
    bad = Document("a", "x", metadata={"lang": {"en": 1}})  # type: ignore[dict-item]
    told = refused(lambda client: client.upsert("docs", [bad]), InvalidMetadataError)
    assert told.startswith("Metadata 'lang' is {'en': 1}. Use str, int")


def test_a_client_without_an_address_says_so() -> None:
    """None is a variable that somebody forgot to set."""

    async def connect() -> None:
        AsyncClient(None)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="target is None; it takes str"):
        Client(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target is None; it takes str"):
        asyncio.run(connect())


OPTIONS: list[tuple[Callable[[], dict[str, Any]], type[Exception], str]] = [
    (lambda: {"retries": 5}, TypeError, "retries is 5; it takes Retries."),
    (lambda: {"retries": None}, TypeError, "retries is None; it takes Retries."),
    (lambda: {"retries": Retries(away_s="x")}, TypeError, "Retries.away_s is 'x'; it takes a number of"),  # type: ignore[arg-type]
    (lambda: {"retries": Retries(away_s=-1)}, ValueError, "Retries.away_s is -1; it takes seconds, 0 or more,"),
    (lambda: {"retries": Retries(overload_s=math.nan)}, ValueError, "Retries.overload_s is nan; it takes seconds"),
    (lambda: {"retries": Retries(max_pause_s=math.inf)}, ValueError, "Retries.max_pause_s is inf; it takes"),
    (lambda: {"timeout_s": None}, TypeError, "timeout_s is None; it takes a number of seconds."),
    (lambda: {"timeout_s": "5"}, TypeError, "timeout_s is '5'; it takes a number of seconds."),
    (lambda: {"timeout_s": True}, TypeError, "timeout_s is True; it takes a number of seconds."),
    (lambda: {"timeout_s": math.nan}, ValueError, "timeout_s is nan; it takes seconds, 0.001 or more,"),
    (lambda: {"timeout_s": -1}, ValueError, "timeout_s is -1; it takes seconds, 0.001 or more,"),
    (lambda: {"timeout_s": 0}, ValueError, 'timeout_s is 0; it takes seconds, 0.001 or more, float("inf") for no'),
    (lambda: {"max_message_bytes": "1"}, TypeError, "max_message_bytes is '1'; it takes int."),
    (lambda: {"max_message_bytes": 0}, ValueError, "max_message_bytes is 0; it takes 1 to 2147483647 bytes."),
    (lambda: {"max_message_bytes": 1 << 32}, ValueError, "max_message_bytes is 4294967296; it takes 1 to"),
    (lambda: {"read_own_writes": "no"}, TypeError, "read_own_writes is 'no'; it takes bool."),
]


@pytest.mark.parametrize(("options", "kind", "told"), OPTIONS, ids=[told[:36] for _, _, told in OPTIONS])
def test_a_client_is_made_of_options_that_can_be(
    options: Callable[[], dict[str, Any]], kind: type[Exception], told: str
) -> None:
    """Each is judged where it is given, not by the first call, and the error names it."""

    async def connect() -> None:
        AsyncClient(**options())

    with pytest.raises(kind) as blocking:
        Client(**options())
    with pytest.raises(kind) as awaited:
        asyncio.run(connect())
    assert str(blocking.value) == str(awaited.value)
    assert str(blocking.value).startswith(told)


def test_a_number_beyond_float32_is_the_servers_to_refuse(server: ScriptedServer) -> None:
    """It travels as infinity, which has an error of its own, and numpy prints nothing beside that."""
    with Client(server.target) as client, warnings.catch_warnings():
        warnings.simplefilter("error")
        client.search("docs", Query(vector=np.array([1.0, 1e300])))
    sent = search_pb.SearchRequest.FromString(server.received.pop().request)
    assert np.frombuffer(sent.vector.data, "<f4").tolist() == [1.0, math.inf]
