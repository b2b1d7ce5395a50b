"""What is refused, with which reason; nothing of a refused request takes effect."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearshore.documents.limits import Limits
from nearshore.documents.requests import (
    CollectionInput,
    CountRequest,
    DeleteRequest,
    DocumentInput,
    GetRequest,
    ListCollectionsRequest,
    ListRequest,
    RawValue,
    Timestamp,
    UpsertRequest,
    Vectors,
)
from nearshore.embedding import Truncation
from nearshore.errors import CallerError
from nearshore.records import WriteToken
from nearshore.search.requests import BatchSearchRequest, SearchRequest
from tests.engine import DIMENSIONS, Engine, packed, tiny_embedder

PLAIN, TEXTS = "collections/plain", "collections/texts"
LIMITS = Limits(
    max_documents=10,
    max_queries=3,
    max_limit=50,
    max_window=100,
    max_text_bytes=1_000,
    max_metadata_keys=4,
    max_metadata_bytes=100,
    max_filter_bytes=200,
    max_collections=2,
    max_read_after=2,
)
ONE = packed(np.ones((1, DIMENSIONS), np.float32))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for the whole table: a refusal leaves it as it was."""
    folder: Path = tmp_path_factory.mktemp("refusals")
    with tiny_embedder(folder / "models") as embedder, Engine(folder / "data", {"tiny": embedder}, LIMITS) as opened:
        opened.create("plain")
        opened.create("texts", model="models/tiny")
        yield opened


def upsert(collection: str = TEXTS, **changes: Any) -> UpsertRequest:
    """One good document, and what is wrong with it."""
    names = ("id", "text", "title", "parent_id", "metadata")
    sent = {name: changes.pop(name) for name in names if name in changes}
    document = replace(DocumentInput("d", "the cat"), **sent)
    vectors = ONE if collection == PLAIN else None
    return replace(UpsertRequest(collection, [document], vectors), **changes)


def metadata(value: RawValue, key: str = "k") -> UpsertRequest:
    """One document with one metadata value."""
    return upsert(metadata={key: value})


def vector(*components: float) -> Vectors:
    """One row."""
    return packed(np.array([components], np.float32))


def foreign(position: int = 1, collection_id: int = 99) -> str:
    """A well-formed token of no write of these collections."""
    return WriteToken(collection_id, position, b"x" * 16).encode()


WRITES = [
    ("INVALID_NAME", upsert("texts")),
    ("INVALID_NAME", upsert("collections/")),
    ("INVALID_NAME", upsert("collections/Ä")),
    ("INVALID_NAME", upsert("collections/" + "a" * 64)),
    ("INVALID_NAME", upsert("collections/a\n")),
    ("COLLECTION_NOT_FOUND", upsert("collections/absent")),
    ("BATCH_SIZE_OUT_OF_RANGE", upsert(documents=[])),
    ("BATCH_SIZE_OUT_OF_RANGE", upsert(documents=[DocumentInput(str(each), "a") for each in range(11)])),
    ("INVALID_ID", upsert(id="")),
    ("INVALID_ID", upsert(id="a\0b")),
    ("INVALID_ID", upsert(id="a" * 513)),
    ("INVALID_ID", upsert(id="ä" * 257)),
    ("INVALID_ID", upsert(id="a" * 10_000)),
    ("INVALID_ID", upsert(parent_id="p\0")),
    ("INVALID_ID", upsert(parent_id="p" * 513)),
    ("DUPLICATE_ID", upsert(documents=[DocumentInput("a", "x"), DocumentInput("b", "x"), DocumentInput("a", "y")])),
    ("EMPTY_TEXT", upsert(text="")),
    ("EMPTY_TEXT", upsert(text=" \n\t\u00a0\u3000")),
    ("EMPTY_TEXT", upsert(text="", title="a title alone")),
    ("EMPTY_TEXT", upsert(text="", vectors=ONE)),
    ("NUL_IN_TEXT", upsert(text="a\0b")),
    ("NUL_IN_TEXT", upsert(PLAIN, text="a\0b")),
    ("NUL_IN_TEXT", upsert(title="\0")),
    ("TEXT_TOO_LARGE", upsert(text="x" * 1_001)),
    ("TEXT_TOO_LARGE", upsert(text="ä" * 501)),
    ("TEXT_TOO_LARGE", upsert(text="x" * 600, title="y" * 401)),
    ("TEXT_TOO_LONG", upsert(text="cat " * 63, truncation=Truncation.REFUSE)),
    ("NUL_IN_TEXT", metadata("a\0")),
    ("NUL_IN_TEXT", metadata(("a", "b\0"))),
    ("NUL_IN_TEXT", metadata("a", key="k\0")),
    ("INVALID_METADATA", metadata(None)),
    ("INVALID_METADATA", metadata((None,))),
    ("INVALID_METADATA", metadata(math.nan)),
    ("INVALID_METADATA", metadata(math.inf)),
    ("INVALID_METADATA", metadata((1.0, -math.inf))),
    ("INVALID_METADATA", metadata(1 << 63)),
    ("INVALID_METADATA", metadata(-(1 << 63) - 1)),
    ("INVALID_METADATA", metadata(("a", 1))),
    ("INVALID_METADATA", metadata((1, 1.0))),
    ("INVALID_METADATA", metadata((1, True))),
    ("INVALID_METADATA", metadata(Timestamp(0, 1))),
    ("INVALID_METADATA", metadata(Timestamp(0, -1_000))),
    ("INVALID_METADATA", metadata(Timestamp(0, 1_000_000_000))),
    ("INVALID_METADATA", metadata(Timestamp(253_402_300_800, 0))),
    ("INVALID_METADATA", metadata(Timestamp(-62_135_596_801, 0))),
    ("INVALID_METADATA", metadata("v", key="")),
    ("INVALID_METADATA", metadata("v", key="_id")),
    ("INVALID_METADATA", metadata("v", key="k" * 129)),
    ("METADATA_TOO_DEEP", metadata((("a",),))),
    ("METADATA_TOO_DEEP", metadata(((((),),),))),
    ("METADATA_TOO_LARGE", upsert(metadata={str(each): each for each in range(5)})),
    ("METADATA_TOO_LARGE", metadata("x" * 100)),
    ("METADATA_TOO_LARGE", metadata(tuple(range(13)))),
    ("VECTORS_REQUIRED", upsert(PLAIN, vectors=None)),
    ("VECTOR_BYTES", upsert(PLAIN, vectors=Vectors(b"123", 1, DIMENSIONS))),
    ("VECTOR_BYTES", upsert(PLAIN, vectors=Vectors(ONE.data, 2, DIMENSIONS))),
    ("VECTOR_BYTES", upsert(PLAIN, vectors=Vectors(ONE.data, -1, -DIMENSIONS))),
    ("VECTOR_ROWS", upsert(PLAIN, vectors=Vectors(b"", 0, DIMENSIONS))),
    ("VECTOR_ROWS", upsert(PLAIN, vectors=packed(np.ones((2, DIMENSIONS), np.float32)))),
    ("VECTOR_WIDTH", upsert(PLAIN, vectors=vector(1, 2, 3))),
    ("VECTOR_NOT_FINITE", upsert(PLAIN, vectors=vector(1, math.nan, 0, 0))),
    ("VECTOR_NOT_FINITE", upsert(PLAIN, vectors=vector(1, math.inf, 0, 0))),
    ("VECTOR_NOT_FINITE", upsert(PLAIN, vectors=vector(-math.inf, math.inf, 0, 0))),
    ("VECTOR_TOO_LARGE", upsert(PLAIN, vectors=vector(1e19, 0, 0, 0))),
    ("ZERO_VECTOR", upsert(PLAIN, vectors=vector(0, -0.0, 0, 0))),
    ("FINGERPRINT_MISMATCH", upsert(PLAIN, vectors=replace(ONE, fingerprint="nsf1-0"))),
    ("FINGERPRINT_REQUIRED", upsert(vectors=packed(np.ones((1, 32), np.float32)))),
    ("FINGERPRINT_MISMATCH", upsert(vectors=packed(np.ones((1, 32), np.float32), "nsf1-0"))),
    ("INVALID_REQUEST_ID", upsert(request_id="a" * 129)),
    ("INVALID_REQUEST_ID", upsert(request_id="ä")),
    ("INVALID_REQUEST_ID", upsert(request_id="a\n")),
]


@pytest.mark.parametrize(("reason", "request_"), WRITES, ids=[f"{n}-{case[0]}" for n, case in enumerate(WRITES)])
def test_a_bad_upsert_is_refused_by_name_and_writes_nothing(
    engine: Engine, reason: str, request_: UpsertRequest
) -> None:
    """Each says what is wrong and what to do, and no document is there afterwards."""
    with pytest.raises(CallerError) as caught:
        engine.run(engine.documents.upsert(request_))
    assert caught.value.reason == reason
    assert caught.value.message
    assert caught.value.remedy
    heads = engine.store.heads()
    assert all(head.position == 0 for head in heads.values())


def test_a_duplicate_id_names_both_places(engine: Engine) -> None:
    """The caller can find the two documents in its batch."""
    documents = [DocumentInput(each, "x") for each in ("a", "b", "c", "b")]
    with pytest.raises(CallerError) as caught:
        engine.run(engine.documents.upsert(UpsertRequest(TEXTS, documents)))
    assert caught.value.metadata == {"first": "1", "second": "3"}


def test_a_text_of_which_the_tokenizer_keeps_nothing_counts_as_empty(engine: Engine) -> None:
    """Zero-width characters alone would embed as no words at all."""
    with pytest.raises(CallerError) as caught:
        engine.run(
            engine.documents.upsert(UpsertRequest(TEXTS, [DocumentInput("a", "cat"), DocumentInput("b", "\ufeff")]))
        )
    assert (caught.value.reason, caught.value.metadata["field"]) == ("EMPTY_TEXT", "documents[1].text")
    with pytest.raises(CallerError) as caught:
        engine.run(engine.searcher.search(SearchRequest(TEXTS, text="\u200b\ufeff")))
    assert caught.value.reason == "EMPTY_TEXT"


def test_an_over_long_text_is_named_by_its_index(engine: Engine) -> None:
    """The index counts documents of the request."""
    documents = [DocumentInput("a", "cat"), DocumentInput("b", "cat " * 63)]
    with pytest.raises(CallerError) as caught:
        engine.run(engine.documents.upsert(UpsertRequest(TEXTS, documents, truncation=Truncation.REFUSE)))
    assert caught.value.reason == "TEXT_TOO_LONG"
    assert caught.value.metadata == {"index": "1", "tokens": "65", "max_tokens": "64"}


DELETES = [
    ("IDS_OR_FILTER", DeleteRequest(PLAIN)),
    ("IDS_OR_FILTER", DeleteRequest(PLAIN, filter=" \n")),
    ("IDS_OR_FILTER", DeleteRequest(PLAIN, ids=["a"], filter="k = 1")),
    ("INVALID_ID", DeleteRequest(PLAIN, ids=["a", ""])),
    ("BATCH_SIZE_OUT_OF_RANGE", DeleteRequest(PLAIN, ids=["a"] * 11)),
    ("INVALID_FILTER", DeleteRequest(PLAIN, filter="k =")),
    ("INVALID_FILTER", DeleteRequest(PLAIN, filter="k = 1 OR " * 30 + "k = 1")),
    ("FIELD_NOT_ALLOWED", DeleteRequest(PLAIN, filter="k = 1", request_id="r")),
    ("INVALID_REQUEST_ID", DeleteRequest(PLAIN, ids=["a"], request_id="\x7f")),
    ("COLLECTION_NOT_FOUND", DeleteRequest("collections/absent", ids=["a"])),
]


@pytest.mark.parametrize(("reason", "request_"), DELETES)
def test_a_bad_delete_is_refused_by_name(engine: Engine, reason: str, request_: DeleteRequest) -> None:
    """A delete that means nothing deletes nothing."""
    with pytest.raises(CallerError) as caught:
        engine.run(engine.documents.delete(request_))
    assert caught.value.reason == reason


READS = [
    ("BATCH_SIZE_OUT_OF_RANGE", GetRequest(PLAIN, [])),
    ("INVALID_ID", GetRequest(PLAIN, ["a\0"])),
    ("INVALID_WRITE_TOKEN", GetRequest(PLAIN, ["a"], read_after=["nonsense"])),
    ("INVALID_WRITE_TOKEN", GetRequest(PLAIN, ["a"], read_after=[""])),
    ("BATCH_SIZE_OUT_OF_RANGE", GetRequest(PLAIN, ["a"], read_after=[foreign()] * 3)),
    ("HISTORY_CHANGED", GetRequest(PLAIN, ["a"], read_after=[foreign()])),
    ("HISTORY_CHANGED", GetRequest(PLAIN, ["a"], read_after=[foreign(collection_id=1)])),
    ("PAGE_SIZE_OUT_OF_RANGE", ListRequest(PLAIN, page_size=-1)),
    ("INVALID_PAGE_TOKEN", ListRequest(PLAIN, page_token="nonsense")),
    ("INVALID_PAGE_TOKEN", ListRequest(PLAIN, page_token="ä")),
    ("INVALID_FILTER", ListRequest(PLAIN, filter="(k = 1")),
    ("INVALID_FILTER", CountRequest(PLAIN, filter='k = "')),
    ("COLLECTION_NOT_FOUND", CountRequest("collections/absent")),
]


@pytest.mark.parametrize(("reason", "request_"), READS)
def test_a_bad_read_is_refused_by_name(
    engine: Engine, reason: str, request_: GetRequest | ListRequest | CountRequest
) -> None:
    """Reads refuse before they wait or read."""
    calls: dict[type, Any] = {
        GetRequest: engine.documents.get,
        ListRequest: engine.documents.list,
        CountRequest: engine.documents.count,
    }
    with pytest.raises(CallerError) as caught:
        engine.run(calls[type(request_)](request_))
    assert caught.value.reason == reason


def search(collection: str = PLAIN, **changes: Any) -> SearchRequest:
    """One good search, and what is wrong with it."""
    return replace(SearchRequest(collection, vector=ONE), **changes)


SEARCHES = [
    ("INVALID_NAME", search("")),
    ("COLLECTION_NOT_FOUND", search("collections/absent")),
    ("QUERY_REQUIRED", search(vector=None)),
    ("QUERY_REQUIRED", search(text="cat")),
    ("QUERY_REQUIRED", search(document_id="")),
    ("NO_MODEL", search(vector=None, text="cat")),
    ("EMPTY_TEXT", search(TEXTS, vector=None, text="")),
    ("EMPTY_TEXT", search(TEXTS, vector=None, text="  ")),
    ("NUL_IN_TEXT", search(TEXTS, vector=None, text="a\0")),
    ("TEXT_TOO_LARGE", search(TEXTS, vector=None, text="x" * 1_001)),
    ("TEXT_TOO_LONG", search(TEXTS, vector=None, text="cat " * 63, truncation=Truncation.REFUSE)),
    ("INVALID_ID", search(vector=None, document_id="")),
    ("DOCUMENT_NOT_FOUND", search(vector=None, document_id="absent")),
    ("VECTOR_ROWS", search(vector=packed(np.ones((2, DIMENSIONS), np.float32)))),
    ("VECTOR_WIDTH", search(vector=vector(1, 2, 3, 4, 5))),
    ("VECTOR_NOT_FINITE", search(vector=vector(1, 2, 3, math.nan))),
    ("ZERO_VECTOR", search(vector=vector(0, 0, 0, 0))),
    ("FINGERPRINT_REQUIRED", search(TEXTS, vector=packed(np.ones((1, 32), np.float32)))),
    ("FINGERPRINT_MISMATCH", search(TEXTS, vector=packed(np.ones((1, 32), np.float32), "nsf1-0"))),
    ("LIMIT_OUT_OF_RANGE", search(limit=0)),
    ("LIMIT_OUT_OF_RANGE", search(limit=-1)),
    ("LIMIT_OUT_OF_RANGE", search(limit=51)),
    ("LIMIT_OUT_OF_RANGE", search(limit=10**9)),
    ("LIMIT_OUT_OF_RANGE", search(offset=-1)),
    ("LIMIT_OUT_OF_RANGE", search(offset=91)),
    ("EF_SEARCH_OUT_OF_RANGE", search(ef_search=0)),
    ("EF_SEARCH_OUT_OF_RANGE", search(ef_search=10_001)),
    ("INVALID_SCORE_THRESHOLD", search(score_threshold=math.nan)),
    ("INVALID_FILTER", search(filter="k ==== 1")),
    ("HISTORY_CHANGED", search(read_after=[foreign()])),
]


@pytest.mark.parametrize(("reason", "request_"), SEARCHES, ids=[f"{n}-{case[0]}" for n, case in enumerate(SEARCHES)])
def test_a_bad_search_is_refused_by_name(engine: Engine, reason: str, request_: SearchRequest) -> None:
    """Alone it is refused with its reason."""
    with pytest.raises(CallerError) as caught:
        engine.run(engine.searcher.search(request_))
    assert caught.value.reason == reason
    assert caught.value.remedy


IN_A_BATCH = [case for case in SEARCHES if case[0] not in {"INVALID_NAME", "COLLECTION_NOT_FOUND", "HISTORY_CHANGED"}]


@pytest.mark.parametrize(("reason", "request_"), IN_A_BATCH)
def test_a_bad_search_fails_its_whole_batch(engine: Engine, reason: str, request_: SearchRequest) -> None:
    """Behind a good search it is refused with the same reason: all are answered or none is."""
    good = SearchRequest("", text="cat") if request_.collection == TEXTS else SearchRequest("", vector=ONE)
    with pytest.raises(CallerError) as caught:
        engine.run(engine.searcher.batch(BatchSearchRequest(request_.collection, [good, request_])))
    assert caught.value.reason == reason
    if reason == "TEXT_TOO_LONG":
        assert caught.value.metadata["index"] == "1"
    elif "field" in caught.value.metadata:
        assert caught.value.metadata["field"].startswith("searches[1].")


BATCHES = [
    ("BATCH_SIZE_OUT_OF_RANGE", BatchSearchRequest(PLAIN, [])),
    ("BATCH_SIZE_OUT_OF_RANGE", BatchSearchRequest(PLAIN, [search()] * 4)),
    ("FIELD_NOT_ALLOWED", BatchSearchRequest(PLAIN, [search(TEXTS)])),
    ("FIELD_NOT_ALLOWED", BatchSearchRequest(PLAIN, [search(read_after=[foreign()])])),
    ("HISTORY_CHANGED", BatchSearchRequest(PLAIN, [search()], read_after=[foreign()])),
]


@pytest.mark.parametrize(("reason", "request_"), BATCHES)
def test_a_bad_batch_is_refused_by_name(engine: Engine, reason: str, request_: BatchSearchRequest) -> None:
    """What the batch as a whole may not be."""
    with pytest.raises(CallerError) as caught:
        engine.run(engine.searcher.batch(request_))
    assert caught.value.reason == reason


COLLECTIONS = [
    ("INVALID_NAME", CollectionInput("", dimensions=4)),
    ("INVALID_NAME", CollectionInput("collections/x", dimensions=4)),
    ("INVALID_NAME", CollectionInput("-x", dimensions=4)),
    ("DIMENSIONS_OUT_OF_RANGE", CollectionInput("x")),
    ("DIMENSIONS_OUT_OF_RANGE", CollectionInput("x", dimensions=-1)),
    ("DIMENSIONS_OUT_OF_RANGE", CollectionInput("x", dimensions=4_097)),
    ("DIMENSIONS_OUT_OF_RANGE", CollectionInput("x", model="models/tiny", dimensions=384)),
    ("FINGERPRINT_MISMATCH", CollectionInput("x", model="models/tiny", fingerprint="nsf1-0")),
    ("FINGERPRINT_MISMATCH", CollectionInput("x", dimensions=4, fingerprint="nsf1-0")),
    ("INVALID_NAME", CollectionInput("x", model="tiny")),
    ("MODEL_NOT_SERVED", CollectionInput("x", model="models/absent")),
    ("TOO_MANY_COLLECTIONS", CollectionInput("x", dimensions=4)),
]


@pytest.mark.parametrize(("reason", "request_"), COLLECTIONS)
def test_a_bad_collection_is_refused_by_name(engine: Engine, reason: str, request_: CollectionInput) -> None:
    """No collection comes of it."""
    with pytest.raises(CallerError) as caught:
        engine.run(engine.collections.create(request_))
    assert caught.value.reason == reason
    assert len(engine.run(engine.collections.list(ListCollectionsRequest())).collections) == 2
