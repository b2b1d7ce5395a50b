"""Writing straight into a store, of every kind."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nearshore.documents.upserts import content_hash
from nearshore.embedding import Embedder
from nearshore.errors import (
    CollectionNotFoundError,
    CommitUnknownError,
    NearshoreError,
    OverloadedError,
    UnavailableError,
)
from nearshore.records import Change, Collection, CollectionSpec, Document, Upsert
from nearshore.store.base import Store, WriteResult
from nearshore_indexer.batches import Batch
from nearshore_indexer.entries import Place, Rejection
from nearshore_indexer.pipeline import Pipeline, Tally, Written, remove_stale
from nearshore_indexer.store_sink import StoreSink
from tests.engine import tiny_embedder
from tests.stores import FACTORIES

DOCUMENTS = [Document(f"d{n}", f"the red fish number {n}", "A title", "p", {"n": n, "l": ("a",)}) for n in range(20)]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    with tiny_embedder(tmp_path_factory.mktemp("model")) as embedder:
        yield embedder


@pytest.fixture(params=FACTORIES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = FACTORIES[request.param](tmp_path).open()
    yield store
    store.close()


@pytest.fixture
def collection(store: Store, embedder: Embedder) -> Collection:
    spec = CollectionSpec("c", embedder.dimensions, model="tiny", fingerprint=embedder.fingerprint())
    return store.create_collection(spec)


def make_sink(store: Store, collection: Collection, embedder: Embedder) -> StoreSink:
    """A sink of a healthy process."""
    return StoreSink(store, collection, embedder, check=lambda: None)


@pytest.fixture
def sink(store: Store, collection: Collection, embedder: Embedder) -> StoreSink:
    return make_sink(store, collection, embedder)


def write(sink: StoreSink, *documents: Document, request_id: str = "") -> Written:
    """What became of the documents."""
    return asyncio.run(sink.write(documents, request_id))


def position(store: Store, collection: Collection) -> int:
    """How many commits there were."""
    return store.heads()[collection.id].position


def test_documents_are_stored_as_a_server_stores_them(
    sink: StoreSink, store: Store, collection: Collection, embedder: Embedder
) -> None:
    """The document, the model's vector bit for bit, and the hash by which a server knows it again."""
    assert write(sink, *DOCUMENTS) == Written(written=20, embedded=20, truncated=0)
    items = store.get_items(collection.id, [each.id for each in DOCUMENTS])
    vectors = embedder.embed([each.embedded_text for each in DOCUMENTS]).vectors
    for document, vector in zip(DOCUMENTS, vectors, strict=True):
        item = items[document.id]
        assert item.document == document
        assert item.vector is not None
        assert item.vector.tobytes() == vector.tobytes()
        assert item.content_hash == content_hash(document)


def test_what_is_there_already_is_not_written(sink: StoreSink, store: Store, collection: Collection) -> None:
    """A second run commits nothing; one new document among them is a commit of one."""
    write(sink, *DOCUMENTS)
    assert write(sink, *DOCUMENTS) == Written(written=0, embedded=0, truncated=0)
    assert position(store, collection) == 1
    assert write(sink, *DOCUMENTS, Document("new", "a bird")) == Written(written=1, embedded=1, truncated=0)
    assert store.get_items(collection.id, ["d3"])["d3"].position == 1


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"n": 1, "l": ("a",), "more": "x"}},
        {"metadata": {"n": 1.0, "l": ("a",)}},
        {"metadata": {"n": True, "l": ("a",)}},
        {"metadata": {"n": 1, "l": ("b",)}},
        {"metadata": {}},
        {"parent_id": "q"},
    ],
)
def test_a_change_beside_the_text_is_written_without_embedding(
    change: dict[str, object], sink: StoreSink, store: Store, collection: Collection
) -> None:
    """Types of metadata count; the vector stays."""
    write(sink, *DOCUMENTS)
    before = store.get_items(collection.id, ["d1"])["d1"].vector
    changed = replace(DOCUMENTS[1], **change)  # type: ignore[arg-type]  # fields by name
    assert write(sink, DOCUMENTS[0], changed, DOCUMENTS[2]) == Written(written=1, embedded=0, truncated=0)
    item = store.get_items(collection.id, ["d1"])["d1"]
    assert item.document == changed
    assert repr(item.document.metadata) == repr(changed.metadata)
    assert item.vector is not None
    assert before is not None
    assert item.vector.tobytes() == before.tobytes()


def test_the_order_of_metadata_is_no_change(sink: StoreSink) -> None:
    """Another file may have its keys in another order."""
    write(sink, DOCUMENTS[1])
    assert write(sink, replace(DOCUMENTS[1], metadata={"l": ("a",), "n": 1})).written == 0


def test_changed_text_and_vectors_of_others_are_embedded(sink: StoreSink, store: Store, collection: Collection) -> None:
    """Without a hash, a stored vector may be anything's. What is longer than the model takes is counted."""
    foreign = np.ones(collection.spec.dimensions, np.float32)
    store.write(collection.id, [Upsert(DOCUMENTS[0], foreign, b"")]).result()
    long = Document("long", "red fish " * 200)
    assert write(sink, DOCUMENTS[0], long) == Written(written=2, embedded=2, truncated=1)
    assert write(sink, replace(DOCUMENTS[0], text="another text")).embedded == 1


def test_a_collection_that_was_deleted_meanwhile_is_told_by_name(
    sink: StoreSink, store: Store, collection: Collection
) -> None:
    """As a server does it, not by the store's number."""
    store.delete_collection(collection.id)
    for missed in (sink.write(DOCUMENTS, "r"), sink.stale({"p": 1}), sink.delete(["d1"])):
        with pytest.raises(CollectionNotFoundError, match="There is no collection 'c'"):
            asyncio.run(missed)


class TroubledStore:
    """A store of which one write goes wrong: before the commit, or behind it."""

    def __init__(self, store: Store, error: NearshoreError, *, committed: bool) -> None:
        self._store = store
        self._error: NearshoreError | None = error
        self._committed = committed

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write(
        self, collection_id: int, changes: Sequence[Change], request_id: str = "", request_digest: bytes = b""
    ) -> Future[WriteResult]:
        error, self._error = self._error, None
        if error is None:
            return self._store.write(collection_id, changes, request_id, request_digest)
        if self._committed:
            self._store.write(collection_id, changes, request_id, request_digest).result()
        failed: Future[WriteResult] = Future()
        failed.set_exception(error)
        return failed


@pytest.mark.parametrize(
    ("error", "committed"),
    [(UnavailableError("away"), False), (OverloadedError("full"), False), (CommitUnknownError(), True)],
)
def test_a_write_that_failed_for_now_is_repeated_without_embedding(
    error: NearshoreError, committed: bool, store: Store, collection: Collection, tmp_path: Path
) -> None:
    """With the same request id, so that one whose outcome was lost is not made twice."""
    embedder = tiny_embedder(tmp_path)
    troubled: Store = TroubledStore(store, error, committed=committed)  # type: ignore[assignment]  # by __getattr__
    sink = make_sink(troubled, collection, embedder)
    with pytest.raises(type(error)):
        write(sink, *DOCUMENTS, request_id="once")
    embedder.close()  # now nothing can be embedded
    assert write(sink, *DOCUMENTS, request_id="once") == Written(written=20, embedded=20, truncated=0)
    assert position(store, collection) == 1


def test_a_dead_process_writes_nothing(store: Store, collection: Collection, embedder: Embedder) -> None:
    """A run must not wait for ever for a thread that is gone."""

    def check() -> None:
        raise SystemError("a thread died")

    sink = StoreSink(store, collection, embedder, check=check)
    with pytest.raises(SystemError):
        write(sink, *DOCUMENTS)


def test_a_text_without_words_is_found_among_the_others(sink: StoreSink, store: Store, collection: Collection) -> None:
    """It passes every check but the model's own; the others are written."""
    rejected: list[Rejection] = []
    tally = Tally()
    documents = (*DOCUMENTS, Document("blank", "\u200b"))
    batch = Batch(documents, tuple(Place("f", n) for n in range(len(documents))), 1)
    pipeline = Pipeline(sink, tally, reject=rejected.append, report=lambda _: None, warn=lambda _: None)
    asyncio.run(pipeline.run(iter([batch])))
    assert [each.id for each in rejected] == ["blank"]
    assert (tally.documents, tally.written, len(store.list_ids(collection.id, [""]))) == (20, 20, 20)


def test_stale_passages_are_removed(sink: StoreSink, store: Store, collection: Collection) -> None:
    """Only path#n beyond the present count, of that very parent; gaps that a killed run left do not hide any."""
    mine = [Document(f"a.md#{n}", "red", parent_id="a.md") for n in (1, 2, 3, 900, 12_000)]
    others = [
        Document("a.md#7", "red", parent_id="else"),
        Document("a.md#x", "red", parent_id="a.md"),
        Document("a.md#007", "red", parent_id="a.md"),
        Document("a.md#5#6", "red", parent_id="a.md#5"),
        Document("b.md#9", "red", parent_id="b.md"),
    ]
    write(sink, *mine, *others)
    assert asyncio.run(remove_stale(sink, {"a.md": 2, "none.md": 0})) == 3
    kept = {each.id for each in [*mine[:2], *others]}
    assert set(store.list_ids(collection.id, [""])) == kept
