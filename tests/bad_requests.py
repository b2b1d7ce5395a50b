"""Requests that must be refused, one a line: what each gets, and what the answer must advise.

The limits are those of the server that tests/integration/test_bad_input.py starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from nearshore.v1 import collection_service_pb2 as collections
from nearshore.v1 import document_service_pb2 as documents
from nearshore.v1 import embedding_service_pb2 as embedding
from nearshore.v1 import search_service_pb2 as searching
from nearshore.v1.document_service_pb2 import Document
from nearshore.v1.values_pb2 import TRUNCATION_CUT_START, TRUNCATION_REFUSE, Value, ValueList, Vectors

MISSING, EXISTS = StatusCode.NOT_FOUND, StatusCode.ALREADY_EXISTS
STATE, ABORTED = StatusCode.FAILED_PRECONDITION, StatusCode.ABORTED


@dataclass(frozen=True)
class World:
    """What only the running server can tell."""

    methods: dict[str, Any]  # the stubs' callables by the name of their request's message
    token_of_texts: str
    token_of_vectors: str
    token_of_a_namesake: str  # of a deleted collection called "texts"
    page_of_a_filter: str  # continues the list of "texts" with the filter _id:*


Request = Message | Callable[[World], Message]


@dataclass(frozen=True)
class Bad:
    """One line of the table."""

    name: str
    request: Request
    reason: str
    advice: str  # part of the message, which has to say what to do
    code: StatusCode = StatusCode.INVALID_ARGUMENT


def upsert(**fields: Any) -> Message:
    """A good upsert of one document into "texts", but for `fields` of the document."""
    sent = [Document(**{"id": "x", "text": "cat", **fields})]
    return documents.UpsertDocumentsRequest(collection="collections/texts", documents=sent)


def batch(*ids: str, **fields: Any) -> Message:
    """An upsert of several documents into "texts"."""
    sent = [Document(id=each, text="cat") for each in ids]
    return documents.UpsertDocumentsRequest(**{"collection": "collections/texts", "documents": sent, **fields})


def metadata(key: str = "key", **kind: Any) -> Message:
    """An upsert of a document with one metadata value."""
    return upsert(metadata={key: Value(**kind)})


def elements(*values: Value) -> ValueList:
    """A list value."""
    return ValueList(values=values)


def vectors(*components: float, rows: int = 1, dimensions: int = 3, fingerprint: str = "") -> Vectors:
    """Vectors whose bytes are those of `components`."""
    data = np.array(components, "<f4").tobytes()
    return Vectors(data=data, rows=rows, dimensions=dimensions, fingerprint=fingerprint)


def upsert_vectors(*components: float, ids: str = "x", **shape: Any) -> Message:
    """An upsert of documents with vectors into "vectors"."""
    sent = [Document(id=each) for each in ids]
    return documents.UpsertDocumentsRequest(
        collection="collections/vectors", documents=sent, vectors=vectors(*components, **shape)
    )


def embedded_by(fingerprint: str) -> Message:
    """An upsert into "texts" of a vector that the caller says was made by the model of `fingerprint`."""
    return batch("x", vectors=vectors(*[1.0] * 32, dimensions=32, fingerprint=fingerprint))


def search(**fields: Any) -> searching.SearchRequest:
    """A good search of "texts", but for `fields`."""
    return searching.SearchRequest(**{"collection": "collections/texts", "text": "cat", **fields})


def search_vector(*components: float, **shape: Any) -> Message:
    """A search of "vectors"."""
    return searching.SearchRequest(collection="collections/vectors", vector=vectors(*components, **shape))


def search_batch(*searches: searching.SearchRequest, **fields: Any) -> Message:
    """A batch of searches of "texts"."""
    return searching.BatchSearchRequest(**{"collection": "collections/texts", "searches": searches, **fields})


def create(collection_id: str, **fields: Any) -> Message:
    """The creation of a collection."""
    return collections.CreateCollectionRequest(
        collection_id=collection_id, collection=collections.Collection(**{"dimensions": 3, **fields})
    )


def of_model(**fields: Any) -> Message:
    """The creation of a collection with the tiny model."""
    return create("new", **{"model": "models/tiny", "dimensions": 0, **fields})


def get(*ids: str, collection: str = "collections/texts", **fields: Any) -> Message:
    """A read by id."""
    return documents.GetDocumentsRequest(collection=collection, ids=ids, **fields)


def listing(**fields: Any) -> Message:
    """One page of "texts"."""
    return documents.ListDocumentsRequest(**{"collection": "collections/texts", **fields})


def delete(**fields: Any) -> Message:
    """A delete in "texts"."""
    return documents.DeleteDocumentsRequest(**{"collection": "collections/texts", **fields})


def embed(*texts: str, **fields: Any) -> Message:
    """Texts to embed."""
    return embedding.EmbedRequest(texts=texts, **fields)


def rerank(*texts: str, **fields: Any) -> Message:
    """Texts to score against a query."""
    return embedding.RerankRequest(texts=texts, **{"query": "cat", **fields})


NESTED, MIXED = elements(Value(list_value=elements())), elements(Value(int64_value=1), Value(string_value="1"))
KEYS = {f"key{n}": Value(bool_value=True) for n in range(65)}
LONG = "cat " * 99
NAN, INFINITE = float("nan"), float("inf")

TABLE = [
    # Texts and ids of documents
    Bad("empty text", upsert(text=""), "EMPTY_TEXT", "Send text that has words"),
    Bad("blank text", upsert(text=" \t\n\u3000"), "EMPTY_TEXT", "Send text that has words"),
    Bad("text of zero width", upsert(text="\u200b\u200b"), "EMPTY_TEXT", "words"),
    Bad("NUL in text", upsert(text="a\0b"), "NUL_IN_TEXT", "Remove U+0000"),
    Bad("NUL in title", upsert(title="a\0b"), "NUL_IN_TEXT", "Remove U+0000"),
    Bad("text too long", batch(documents=[Document(id="x", text=LONG)], truncation=TRUNCATION_REFUSE),
        "TEXT_TOO_LONG", "Split the text"),
    Bad("text of 9 kB", upsert(text="x" * 9_000), "TEXT_TOO_LARGE", "split it into passages"),
    Bad("empty id", upsert(id=""), "INVALID_ID", "1 to 512 bytes"),
    Bad("NUL in id", upsert(id="a\0b"), "INVALID_ID", "no U+0000"),
    Bad("id of 10 kB", upsert(id="x" * 10_000), "INVALID_ID", "at most 512 bytes"),
    Bad("NUL in parent_id", upsert(parent_id="\0"), "INVALID_ID", "no U+0000"),
    Bad("parent_id of 10 kB", upsert(parent_id="ä" * 5_000), "INVALID_ID", "at most 512 bytes"),
    Bad("duplicate ids", batch("x", "y", "x"), "DUPLICATE_ID", "Keep one of them"),
    Bad("no documents", batch(), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad("too many documents", batch(*"abcdefghi"), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad("one bad document among good", batch("x", "", "z"), "INVALID_ID", "documents[1].id"),
    Bad("start cut", batch("x", truncation=TRUNCATION_CUT_START), "FIELD_NOT_ALLOWED", "TRUNCATION_CUT_END"),
    Bad("unknown truncation", batch("x", truncation=99), "UNKNOWN_ENUM_VALUE", "leave the field out"),
    Bad("request_id with an umlaut", batch("x", request_id="ä"), "INVALID_REQUEST_ID", "a UUID"),
    Bad("request_id of 129 characters", batch("x", request_id="x" * 129), "INVALID_REQUEST_ID", "1 to 128"),
    Bad("request_id used for other content", batch("x", request_id="used"),
        "REQUEST_ID_REUSED", "Use a new request_id"),
    # Metadata
    Bad("a list in a list", metadata(list_value=NESTED), "METADATA_TOO_DEEP", "Flatten it"),
    Bad("a list of two types", metadata(list_value=MIXED), "INVALID_METADATA", "All elements"),
    Bad("a value without kind", metadata(), "INVALID_METADATA", "Set one kind"),
    Bad("an element without kind", metadata(list_value=elements(Value())), "INVALID_METADATA", "Set one kind"),
    Bad("NaN in metadata", metadata(double_value=NAN), "INVALID_METADATA", "finite"),
    Bad("infinity in metadata", metadata(double_value=-INFINITE), "INVALID_METADATA", "finite"),
    Bad("nanoseconds", metadata(timestamp_value=Timestamp(nanos=1)), "INVALID_METADATA", "whole microseconds"),
    Bad("year 10000", metadata(timestamp_value=Timestamp(seconds=1 << 40)), "INVALID_METADATA", "1 to 9999"),
    Bad("metadata of 70 kB", metadata(string_value="x" * 70_000), "METADATA_TOO_LARGE", "put long text in text"),
    Bad("65 keys", upsert(metadata=KEYS), "METADATA_TOO_LARGE", "At most 64"),
    Bad("NUL in a key", metadata("a\0b", int64_value=1), "NUL_IN_TEXT", "Remove U+0000"),
    Bad("NUL in a value", metadata(string_value="\0"), "NUL_IN_TEXT", "Remove U+0000"),
    Bad("empty key", metadata("", int64_value=1), "INVALID_METADATA", "1 to 128 bytes"),
    Bad("key of 10 kB", metadata("x" * 10_000, int64_value=1), "INVALID_METADATA", "1 to 128 bytes"),
    Bad("key of ours", metadata("_id", int64_value=1), "INVALID_METADATA", "leading '_'"),
    # Vectors
    Bad("narrow vector", upsert_vectors(1, 2, dimensions=2), "VECTOR_WIDTH", "have 3"),
    Bad("missing bytes", upsert_vectors(1, 2), "VECTOR_BYTES", "4 * rows * dimensions"),
    Bad("negative rows", upsert_vectors(1, 2, 3, rows=-1, dimensions=-3), "VECTOR_BYTES", "4 * rows * dimensions"),
    Bad("2^62 components", upsert_vectors(1, rows=2**31 - 1, dimensions=2**31 - 1), "VECTOR_BYTES", "rows"),
    Bad("two rows for a document", upsert_vectors(*range(6), rows=2), "VECTOR_ROWS", "Send exactly 1"),
    Bad("NaN in a vector", upsert_vectors(1, 2, NAN), "VECTOR_NOT_FINITE", "must be finite"),
    Bad("infinity in a vector", upsert_vectors(1, 2, INFINITE), "VECTOR_NOT_FINITE", "must be finite"),
    Bad("zero vector", upsert_vectors(1, 2, 3, 0, 0, 0, ids="xy", rows=2), "ZERO_VECTOR", "Leave the row out"),
    Bad("vector beyond float32", upsert_vectors(3e38, 0, 0), "VECTOR_TOO_LARGE", "Scale"),
    Bad("no vectors", batch("x", collection="collections/vectors"), "VECTORS_REQUIRED", "Send vectors of 3"),
    Bad("no fingerprint", embedded_by(""), "FINGERPRINT_REQUIRED", "that Embed answered"),
    Bad("another model's vectors", embedded_by("nsf1-other"), "FINGERPRINT_MISMATCH", "Embed with tiny", STATE),
    Bad("a fingerprint without model", upsert_vectors(1, 2, 3, fingerprint="nsf1-other"),
        "FINGERPRINT_MISMATCH", "Leave the fingerprint out", STATE),
    # Collections
    Bad("collection exists", create("texts"), "COLLECTION_EXISTS", "another name", EXISTS),
    Bad("one collection too many", create("fifth"), "TOO_MANY_COLLECTIONS", "Delete one", STATE),
    *(Bad(f"collection id {each[:9]!r}", create(each), "INVALID_NAME", "Write 1 to 63 of a-z")
      for each in ("", "A", "a/b", "../a", "-a", "a\0", "x" * 64, "ä")),
    Bad("no width", create("new", dimensions=0), "DIMENSIONS_OUT_OF_RANGE", "Set collection.model"),
    Bad("width of 4097", create("new", dimensions=4_097), "DIMENSIONS_OUT_OF_RANGE", "1 to 4,096"),
    Bad("unknown metric", create("new", metric=99), "UNKNOWN_ENUM_VALUE", "leave the field out"),
    Bad("unknown index kind", create("new", index=collections.IndexConfig(kind=99)),  # type: ignore[arg-type]
        "UNKNOWN_ENUM_VALUE", "leave the field out"),
    Bad("unknown model", create("new", model="models/other"), "MODEL_NOT_SERVED", "serves tiny. Leave", MISSING),
    Bad("bad model name", create("new", model="tiny"), "INVALID_NAME", 'Write "models/"'),
    Bad("another width than the model's", of_model(dimensions=3), "DIMENSIONS_OUT_OF_RANGE", "Leave"),
    Bad("another fingerprint than the model's", of_model(fingerprint="nsf1-other"),
        "FINGERPRINT_MISMATCH", "leave collection.fingerprint out", STATE),
    Bad("collection unknown", search(collection="collections/absent"), "COLLECTION_NOT_FOUND", "List the", MISSING),
    Bad("collection to delete unknown", collections.DeleteCollectionRequest(name="collections/absent"),
        "COLLECTION_NOT_FOUND", "List the collections", MISSING),
    Bad("no collection", documents.CountDocumentsRequest(), "INVALID_NAME", 'Write "collections/"'),
    Bad("name without collections/", get("1", collection="texts"), "INVALID_NAME", 'Write "collections/"'),
    Bad("name of 200 kB", collections.GetCollectionRequest(name="ä" * 100_000), "INVALID_NAME", "Write"),
    Bad("page of collections", collections.ListCollectionsRequest(page_token="x"),
        "INVALID_PAGE_TOKEN", "start again"),
    # Queries
    Bad("no query", searching.SearchRequest(collection="collections/texts"), "QUERY_REQUIRED", "exactly one"),
    Bad("empty query", search(text=""), "EMPTY_TEXT", "Send text that has words"),
    Bad("NUL in a query", search(text="a\0b"), "NUL_IN_TEXT", "Remove U+0000"),
    Bad("query's start cut", search(truncation=TRUNCATION_CUT_START), "FIELD_NOT_ALLOWED", "only Embed"),
    Bad("start cut in a batch", search_batch(search(truncation=TRUNCATION_CUT_START)), "FIELD_NOT_ALLOWED",
        "searches[0].truncation"),
    Bad("query too long", search(text=LONG, truncation=TRUNCATION_REFUSE), "TEXT_TOO_LONG", "Split the text"),
    Bad("query of 9 kB", search(text="x" * 9_000), "TEXT_TOO_LARGE", "At most 8,192"),
    Bad("text without model", search(collection="collections/vectors"), "NO_MODEL", "vector", STATE),
    Bad("two vectors", search_vector(*range(6), rows=2), "VECTOR_ROWS", "Send exactly 1"),
    Bad("no vector", search_vector(rows=0), "VECTOR_ROWS", "Send exactly 1"),
    Bad("narrow query", search_vector(1, dimensions=1), "VECTOR_WIDTH", "have 3"),
    Bad("NaN in a query", search_vector(NAN, 0, 0), "VECTOR_NOT_FINITE", "must be finite"),
    Bad("zero query", search_vector(0, 0, 0), "ZERO_VECTOR", "without direction"),
    Bad("unknown document", search(document_id="absent"), "DOCUMENT_NOT_FOUND", "Upsert it first", MISSING),
    Bad("empty document_id", search(document_id=""), "INVALID_ID", "1 to 512 bytes"),
    Bad("limit of 0", search(limit=0), "LIMIT_OUT_OF_RANGE", "Ask for 1 to 1,000"),
    Bad("limit of 10^9", search(limit=10**9), "LIMIT_OUT_OF_RANGE", "Ask for 1 to 1,000"),
    Bad("negative offset", search(offset=-1), "LIMIT_OUT_OF_RANGE", "at least 0"),
    Bad("offset of 2^31 - 1", search(offset=2**31 - 1), "LIMIT_OUT_OF_RANGE", "at most 10,000"),
    Bad("ef_search of 0", search(ef_search=0), "EF_SEARCH_OUT_OF_RANGE", "Ask for 1 to 10,000"),
    Bad("ef_search of 10^9", search(ef_search=10**9), "EF_SEARCH_OUT_OF_RANGE", "or set exact"),
    Bad("NaN as threshold", search(score_threshold=NAN), "INVALID_SCORE_THRESHOLD", "leave it out"),
    Bad("no searches", search_batch(), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 4"),
    Bad("too many searches", search_batch(*[search()] * 5), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 4"),
    Bad("one bad search among good", search_batch(search(), search(limit=0)),
        "LIMIT_OUT_OF_RANGE", "searches[1].limit"),
    Bad("two collections", search_batch(search(collection="collections/vectors")),
        "FIELD_NOT_ALLOWED", "leave the inner one out"),
    Bad("read_after within a batch", search_batch(search(read_after=["x"])),
        "FIELD_NOT_ALLOWED", "read_after of the batch"),
    # Filters
    Bad("quote left open", search(filter='a = "'), "INVALID_FILTER", "Close the quote"),
    Bad("filter ends too soon", search(filter="a ="), "INVALID_FILTER", "Finish the comparison"),
    Bad("parenthesis left open", search(filter="(a = 1"), "INVALID_FILTER", "close every parenthesis"),
    Bad("two equal signs", search(filter="a == 1"), "INVALID_FILTER", "Equality is one ="),
    Bad("a word alone", search(filter="cat"), "INVALID_FILTER", "write key = value"),
    Bad("a wildcard", search(filter='a = "c*"'), "INVALID_FILTER", "\\*"),
    Bad("a function", search(filter="f(1)"), "INVALID_FILTER", "write key = value"),
    Bad("a huge number", search(filter="a = 1e999"), "INVALID_FILTER", "up to 1.8e308"),
    Bad("filter of 10 kB", search(filter=f'a = "{"x" * 10_000}"'), "INVALID_FILTER", "Shorten it"),
    Bad("deep filter", search(filter="(" * 4_000 + "a = 1" + ")" * 4_000), "INVALID_FILTER", "Flatten it"),
    Bad("deep negation", search(filter="NOT " * 1_000 + "a = 1"), "INVALID_FILTER", "parentheses"),
    Bad("bad filter of a list", listing(filter="a ="), "INVALID_FILTER", "Finish"),
    Bad("bad filter of a count", documents.CountDocumentsRequest(collection="collections/texts", filter="a ="),
        "INVALID_FILTER", "Finish"),
    Bad("bad filter of a delete", delete(filter="a ="), "INVALID_FILTER", "Finish"),
    # Reading, tokens and pages
    Bad("garbage as token", search(read_after=["x"]), "INVALID_WRITE_TOKEN", "unchanged"),
    Bad("empty token", search(read_after=[""]), "INVALID_WRITE_TOKEN", "unchanged"),
    Bad("token of another collection", lambda world: search(read_after=[world.token_of_vectors]),
        "HISTORY_CHANGED", "tokens of this collection only", ABORTED),
    Bad("token of a namesake", lambda world: search(read_after=[world.token_of_a_namesake]),
        "HISTORY_CHANGED", "use the new write_token", ABORTED),
    Bad("token cut short", lambda world: search(read_after=[world.token_of_texts[:-2]]),
        "INVALID_WRITE_TOKEN", "unchanged"),
    Bad("101 tokens", get("1", read_after=["x"] * 101), "BATCH_SIZE_OUT_OF_RANGE", "at most 100"),
    Bad("garbage as page", listing(page_token="x"), "INVALID_PAGE_TOKEN", "start again without one"),
    Bad("page of another filter", lambda world: listing(page_token=world.page_of_a_filter),
        "INVALID_PAGE_TOKEN", "with the same collection and filter"),
    Bad("negative page_size", listing(page_size=-1), "PAGE_SIZE_OUT_OF_RANGE", "leave it out"),
    Bad("no ids", get(), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad("nine ids", get(*"abcdefghi"), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad("NUL in an id to read", get("a", "\0"), "INVALID_ID", "ids[1]"),
    Bad("nothing to delete", delete(), "IDS_OR_FILTER", "Send one of them"),
    Bad("blank filter to delete", delete(filter=" "), "IDS_OR_FILTER", "Send one of them"),
    Bad("ids and filter", delete(ids=["1"], filter="a = 1"), "IDS_OR_FILTER", "Send one of them"),
    Bad("request_id with a filter", delete(filter="a = 1", request_id="r"), "FIELD_NOT_ALLOWED", "Leave it out"),
    Bad("id of 10 kB to delete", delete(ids=["x" * 10_000]), "INVALID_ID", "at most 512 bytes"),
    # Embedding
    Bad("no texts", embed(), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad("nine texts", embed(*"abcdefghi"), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad("no texts to tokenize", embedding.TokenizeRequest(), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad(
        "9 kB to tokenize in all",
        embedding.TokenizeRequest(texts=["x" * 4_500] * 2),
        "TEXT_TOO_LARGE",
        "send fewer texts a call",
    ),
    Bad("text to embed too long", embed("a", LONG, truncation=TRUNCATION_REFUSE), "TEXT_TOO_LONG", "Text 1"),
    Bad("text to embed of 9 kB", embed("x" * 9_000), "TEXT_TOO_LARGE", "split it"),
    Bad("model not served", embed("a", model="models/other"), "MODEL_NOT_SERVED", "serves tiny. Leave", MISSING),
    Bad("model without models/", embed("a", model="tiny"), "INVALID_NAME", 'Write "models/"'),
    Bad("more dimensions than there are", embed("a", dimensions=33), "DIMENSIONS_OUT_OF_RANGE", "Ask for 1 to 32"),
    Bad("negative dimensions", embed("a", dimensions=-1), "DIMENSIONS_OUT_OF_RANGE", "dimensions is -1"),
    Bad("no texts to rerank", rerank(), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad("nine texts to rerank", rerank(*"abcdefghi"), "BATCH_SIZE_OUT_OF_RANGE", "Send 1 to 8"),
    Bad("text to rerank of 9 kB", rerank("a", "x" * 9_000), "TEXT_TOO_LARGE", "texts[1]"),
    Bad("query to rerank by of 9 kB", rerank("a", query="x" * 9_000), "TEXT_TOO_LARGE", "query has 9,000"),
    Bad("no query to rerank by", rerank("a", query=""), "EMPTY_TEXT", "Send text that has words"),
    Bad("blank query to rerank by", rerank("a", query=" \u3000"), "EMPTY_TEXT", "Send text that has words"),
    Bad("best none of the reranked", rerank("a", limit=0), "LIMIT_OUT_OF_RANGE", "leave it out for all"),
    Bad("unknown truncation of a rerank", rerank("a", truncation=99), "UNKNOWN_ENUM_VALUE", "leave the field out"),
    Bad("rerank by an embedding model", rerank("a"), "NOT_A_CROSS_ENCODER", "embedding.models"),
    Bad("page of models", embedding.ListModelsRequest(page_token="x"), "INVALID_PAGE_TOKEN", "start again without one"),
    Bad("negative page_size of models", embedding.ListModelsRequest(page_size=-1), "PAGE_SIZE_OUT_OF_RANGE",
        "leave it out"),
    Bad("unload the default model", embedding.UnloadModelRequest(model="models/tiny"), "MODEL_STAYS_LOADED",
        "Restart the server", StatusCode.FAILED_PRECONDITION),
    Bad("unload no model", embedding.UnloadModelRequest(), "INVALID_NAME", 'Write "models/"'),
    Bad("unload a model not served", embedding.UnloadModelRequest(model="models/other"), "MODEL_NOT_SERVED",
        "serves tiny", MISSING),
    Bad("rerank by a model not served", rerank("a", model="models/other"), "MODEL_NOT_SERVED", "tiny", MISSING),
    Bad("unknown special tokens", embed("a", special_tokens=99), "UNKNOWN_ENUM_VALUE", "leave the field out"),
]  # fmt: skip
