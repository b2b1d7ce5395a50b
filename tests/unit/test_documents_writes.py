"""Writing, reading, listing, counting and deleting documents, over a real store, replica and model."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearshore.documents import reading
from nearshore.documents.errors import WriteOutcomePendingError
from nearshore.documents.limits import Limits
from nearshore.documents.requests import (
    CollectionInput,
    CountAnswer,
    CountRequest,
    DeleteRequest,
    DocumentInput,
    GetRequest,
    ListCollectionsRequest,
    ListRequest,
    Parts,
    RawValue,
    Timestamp,
    UpsertRequest,
)
from nearshore.documents.waiting import outcome_of
from nearshore.embedding import Embedder, Embeddings, Truncation
from nearshore.embedding.errors import TextTooLongError
from nearshore.errors import (
    CallerError,
    CollectionNotFoundError,
    DeadlineError,
    OverloadedError,
    RequestIdReusedError,
    StorageFullError,
    UnavailableError,
)
from nearshore.exit_codes import ExitCode, exit_code
from nearshore.index.filters import parse
from nearshore.records import Document, Item, MetadataValue, Upsert, WriteToken
from nearshore.replica import Replica
from nearshore.replica.mirror import Mirror
from nearshore.store.errors import StoreOverloadedError
from tests.engine import DIMENSIONS, Engine, packed, tiny_embedder, unpacked
from tests.waiting import WAIT_S, eventually

NAMES = (f"c{number}" for number in count())
QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    """The tiny model."""
    with tiny_embedder(tmp_path_factory.mktemp("models")) as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Iterator[Engine]:
    """One engine; every test makes collections of its own."""
    with Engine(tmp_path_factory.mktemp("data"), {"tiny": embedder}) as opened:
        yield opened


@pytest.fixture
def texts(engine: Engine) -> str:
    """A new collection that the tiny model embeds."""
    return engine.create(next(NAMES), model="models/tiny")


@pytest.fixture
def plain(engine: Engine) -> str:
    """A new collection without a model."""
    return engine.create(next(NAMES))


def vectors_of(
    engine: Engine, collection: str, ids: list[str], token: str
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    request = GetRequest(collection, ids, parts=Parts(vector=True), read_after=[token])
    return unpacked(engine.run(engine.documents.get(request)).vectors)


# Values, as sent and as they come back

plain_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
integers = st.integers(-(1 << 63), (1 << 63) - 1)
doubles = st.floats(allow_nan=False, allow_infinity=False)
timestamps = st.builds(
    Timestamp, st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999).map(lambda us: us * 1_000)
)
scalars: list[st.SearchStrategy[RawValue]] = [plain_text, integers, doubles, st.booleans(), timestamps]
values = st.one_of(*scalars, *(st.lists(each, max_size=4).map(tuple) for each in scalars))
keys = plain_text.filter(lambda key: key != "" and not key.startswith("_"))
documents = st.builds(
    DocumentInput,
    id=plain_text.filter(bool),
    text=plain_text,
    title=plain_text,
    parent_id=plain_text,
    metadata=st.dictionaries(keys, values, max_size=5),
)


def stored(raw: RawValue) -> MetadataValue:
    """What a value as sent is when it comes back."""
    if isinstance(raw, Timestamp):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=raw.seconds, microseconds=raw.nanos // 1_000)
    if isinstance(raw, tuple):
        return tuple(stored(each) for each in raw)  # type: ignore[misc]  # lists are flat
    assert raw is not None
    return raw


def typed(document: Document) -> object:
    """A document with the types of its values, which == alone does not tell apart (1, 1.0, True)."""
    return document, sorted((key, repr(value)) for key, value in document.metadata.items())


@QUICK
@given(batch=st.lists(documents, min_size=1, max_size=5, unique_by=lambda document: document.id))
def test_what_is_upserted_is_read_back_exactly(engine: Engine, plain: str, batch: list[DocumentInput]) -> None:
    """Every text, title, parent and metadata value of every type comes back as it was, in request order."""
    vectors = np.random.default_rng(0).standard_normal((len(batch), DIMENSIONS)).astype(np.float32)
    answer = engine.run(engine.documents.upsert(UpsertRequest(plain, batch, vectors=packed(vectors))))
    ids = [document.id for document in reversed(batch)]
    got = engine.run(engine.documents.get(GetRequest(plain, ids, read_after=[answer.write_token])))
    expected = [
        Document(each.id, each.text, each.title, each.parent_id, {k: stored(v) for k, v in each.metadata.items()})
        for each in reversed(batch)
    ]
    assert [typed(document) for document in got.documents] == [typed(document) for document in expected]
    assert not got.missing_ids
    assert got.read_state.position >= WriteToken.decode(answer.write_token).position


def test_vectors_are_normalized_for_cosine_and_unit_vectors_keep_their_bits(engine: Engine, plain: str) -> None:
    """What was read can be written again without drifting."""
    vectors = np.random.default_rng(1).standard_normal((20, DIMENSIONS)).astype(np.float32) * 1e-20
    ids = [str(each) for each in range(20)]
    first = vectors_of(engine, plain, ids, engine.put(plain, ids, vectors))
    np.testing.assert_allclose(np.linalg.norm(first.astype(np.float64), axis=1), 1, atol=1e-7)
    second = vectors_of(engine, plain, ids, engine.put(plain, ids, first))
    np.testing.assert_array_equal(first, second)


def test_the_server_embeds_title_and_text(engine: Engine, embedder: Embedder, texts: str) -> None:
    """The vector is that of title, space, text, bit for bit, with the model's fingerprint."""
    sent = [DocumentInput("a", "the cat"), DocumentInput("b", "the cat", title="red")]
    answer = engine.run(engine.documents.upsert(UpsertRequest(texts, sent)))
    assert answer.embedded_count == 2
    request = GetRequest(texts, ["a", "b"], Parts(vector=True), [answer.write_token])
    got = engine.run(engine.documents.get(request))
    assert got.vectors is not None
    np.testing.assert_array_equal(unpacked(got.vectors), embedder.embed(["the cat", "red the cat"]).vectors)
    assert got.vectors.fingerprint == embedder.fingerprint()


def test_unchanged_text_is_not_embedded_again(engine: Engine, texts: str) -> None:
    """A change of metadata keeps the vector; a change of text or title makes a new one."""
    sent = [DocumentInput("a", "cat"), DocumentInput("b", "dog"), DocumentInput("c", "bird", title="red")]
    first = engine.run(engine.documents.upsert(UpsertRequest(texts, sent)))
    before = vectors_of(engine, texts, ["a", "b", "c"], first.write_token)
    changed = [replace(sent[0], metadata={"k": 1}), replace(sent[1], text="fish"), replace(sent[2], title="blue")]
    second = engine.run(engine.documents.upsert(UpsertRequest(texts, changed)))
    assert (first.embedded_count, second.embedded_count) == (3, 2)
    after = vectors_of(engine, texts, ["a", "b", "c"], second.write_token)
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1:] != after[1:]).any(axis=1).all()
    got = engine.run(engine.documents.get(GetRequest(texts, ["a"])))
    assert got.documents[0].metadata == {"k": 1}


def test_a_vector_that_was_sent_is_not_kept_for_its_text(engine: Engine, texts: str, embedder: Embedder) -> None:
    """A caller's vector may be another text's: upserting the text without vectors embeds it, and that one is kept."""
    documents = [DocumentInput("a", "cat")]
    wrong = packed(embedder.embed(["red dog"]).vectors, embedder.fingerprint())
    engine.run(engine.documents.upsert(UpsertRequest(texts, documents, wrong)))
    answer = engine.run(engine.documents.upsert(UpsertRequest(texts, documents)))
    assert answer.embedded_count == 1
    np.testing.assert_array_equal(vectors_of(engine, texts, ["a"], answer.write_token), embedder.embed(["cat"]).vectors)
    assert engine.run(engine.documents.upsert(UpsertRequest(texts, documents))).embedded_count == 0


def test_a_deleted_text_is_embedded_again(engine: Engine, texts: str) -> None:
    """A tombstone keeps nothing to reuse."""
    sent = UpsertRequest(texts, [DocumentInput("a", "cat")])
    engine.run(engine.documents.upsert(sent))
    engine.run(engine.documents.delete(DeleteRequest(texts, ids=["a"])))
    assert engine.run(engine.documents.upsert(sent)).embedded_count == 1


def test_cut_texts_are_named_and_refused_on_request_even_when_unchanged(engine: Engine, texts: str) -> None:
    """TRUNCATION_REFUSE holds also for a text that was cut and stored before."""
    sent = [DocumentInput("a", "cat"), DocumentInput("b", "cat " * 100)]
    assert engine.run(engine.documents.upsert(UpsertRequest(texts, sent))).truncated_indexes == (1,)
    refusing = UpsertRequest(texts, sent, truncation=Truncation.REFUSE)
    with pytest.raises(TextTooLongError) as caught:
        engine.run(engine.documents.upsert(refusing))
    assert caught.value.metadata["index"] == "1"


def test_vectors_made_elsewhere_are_taken_with_the_fingerprint(engine: Engine, embedder: Embedder, texts: str) -> None:
    """Vectors that Embed answered are stored as they are and nothing is embedded."""
    made = embedder.embed(["cat"])
    request = UpsertRequest(texts, [DocumentInput("a", "cat")], packed(made.vectors, made.fingerprint))
    answer = engine.run(engine.documents.upsert(request))
    assert answer.embedded_count == 0
    np.testing.assert_array_equal(vectors_of(engine, texts, ["a"], answer.write_token), made.vectors)


def test_a_repeated_request_id_writes_nothing(engine: Engine, texts: str) -> None:
    """The retry gets the first token even after a later write, which stays; another content is refused."""
    sent = UpsertRequest(texts, [DocumentInput("a", "cat", metadata={"k": 1})], request_id="r-1")
    first = engine.run(engine.documents.upsert(sent))
    later = engine.run(engine.documents.upsert(UpsertRequest(texts, [DocumentInput("a", "dog")])))
    retried = engine.run(engine.documents.upsert(sent))
    assert (retried.write_token, retried.embedded_count) == (first.write_token, 0)
    with pytest.raises(RequestIdReusedError):
        engine.run(engine.documents.upsert(replace(sent, documents=[DocumentInput("a", "cat", metadata={"k": 1.0})])))
    with pytest.raises(RequestIdReusedError):
        engine.run(engine.documents.delete(DeleteRequest(texts, ids=["a"], request_id="r-1")))
    got = engine.run(engine.documents.get(GetRequest(texts, ["a"], read_after=[later.write_token])))
    assert got.documents[0].text == "dog"
    assert got.read_state.head == WriteToken.decode(later.write_token).position


def test_a_delete_by_id_counts_what_existed(engine: Engine, plain: str) -> None:
    """Unknown and repeated ids are no error and are not counted; a retry answers the same."""
    engine.put(plain, ["a", "b", "c"], np.eye(3, DIMENSIONS, dtype=np.float32))
    request = DeleteRequest(plain, ids=["a", "x", "a", "c"], request_id="d-1")
    deleted = engine.run(engine.documents.delete(request))
    assert deleted.deleted_count == 2
    assert engine.run(engine.documents.delete(request)) == deleted
    got = engine.run(engine.documents.get(GetRequest(plain, ["a", "b", "c", "b"], read_after=[deleted.write_token])))
    assert [document.id for document in got.documents] == ["b", "b"]
    assert got.missing_ids == ["a", "c"]


FILTERS = [
    "n < 5",
    "n >= 3 AND even = true",
    'tag = ("a" OR "b")',
    "NOT n:*",
    '_id = "7"',
    'n < 2 OR -tag = "a"',
    "n > 99",
]


@QUICK
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {}, optional={"n": st.integers(0, 9), "even": st.booleans(), "tag": st.sampled_from("abc")}
        ),
        min_size=1,
        max_size=12,
    ),
    filter_text=st.sampled_from(FILTERS),
)
def test_list_count_and_delete_by_filter_agree_with_the_filters_meaning(
    engine: Engine, rows: list[dict[str, RawValue]], filter_text: str
) -> None:
    """All three see exactly the documents that the filter matches one by one, at once after the write."""
    collection = engine.create(next(NAMES))
    ids = [str(each) for each in range(len(rows))]
    token = engine.put(collection, ids, np.ones((len(rows), DIMENSIONS), np.float32), rows)
    tree = parse(filter_text)
    matching = [i for i, row in zip(ids, rows, strict=True) if tree.matches(Document(i, "", metadata=row))]  # type: ignore[arg-type]
    listed = engine.run(engine.documents.list(ListRequest(collection, filter_text, read_after=[token])))
    assert [document.id for document in listed.documents] == sorted(matching)
    counted = engine.run(engine.documents.count(CountRequest(collection, filter_text, [token])))
    assert counted.count == len(matching)
    deleted = engine.run(engine.documents.delete(DeleteRequest(collection, filter=filter_text)))
    assert deleted.deleted_count == len(matching)
    assert bool(deleted.write_token) == bool(matching)
    left = engine.run(
        engine.documents.list(ListRequest(collection, read_after=[deleted.write_token] if matching else [token]))
    )
    assert [document.id for document in left.documents] == sorted(set(ids) - set(matching))


def test_a_delete_by_filter_sees_every_write_before_it_and_is_one_commit(engine: Engine, plain: str) -> None:
    """It catches up with the store first; three thousand documents go in one position."""
    ids = [f"{each:04}" for each in range(1_000)]
    vectors = np.ones((1_000, DIMENSIONS), np.float32)
    for part in range(3):
        token = engine.put(plain, [f"{part}-{each}" for each in ids], vectors, [{"old": True}] * 1_000)
    deleted = engine.run(engine.documents.delete(DeleteRequest(plain, filter="old = true")))
    assert deleted.deleted_count == 3_000
    assert WriteToken.decode(deleted.write_token).position == WriteToken.decode(token).position + 1


def test_a_list_walks_all_documents_in_the_order_of_their_ids(engine: Engine, plain: str) -> None:
    """Ids go by code point; pages neither skip nor repeat, and the last has no token."""
    ids = ["a", "B", "ä", "z", "\U0001f600", "\uffee", "10", "9", "a" * 512]
    token = engine.put(plain, ids, np.ones((len(ids), DIMENSIONS), np.float32))
    request, seen = ListRequest(plain, page_size=2, read_after=[token]), []
    while True:
        page = engine.run(engine.documents.list(request))
        seen += [document.id for document in page.documents]
        if not page.next_page_token:
            break
        assert len(page.documents) == 2
        request = replace(request, page_token=page.next_page_token)
    assert seen == sorted(ids)
    with pytest.raises(CallerError) as caught:
        engine.run(engine.documents.list(replace(request, filter="k = 1")))
    assert caught.value.reason == "INVALID_PAGE_TOKEN"


def test_a_page_ends_at_its_size_in_bytes_and_an_answer_at_the_messages(tmp_path: Path) -> None:
    """A list goes on in another page, with at least one document each; a get is refused."""
    limits = Limits(max_page_bytes=2_500, max_message_bytes=4_000)
    with Engine(tmp_path, limits=limits) as engine:
        collection = engine.create("c")
        sent = [DocumentInput(str(each), "x" * (3_000 if each == 2 else 1_000)) for each in range(5)]
        vectors = packed(np.ones((5, DIMENSIONS), np.float32))
        token = engine.run(engine.documents.upsert(UpsertRequest(collection, sent, vectors))).write_token
        request, pages = ListRequest(collection, read_after=[token]), []
        while True:
            page = engine.run(engine.documents.list(request))
            pages.append([document.id for document in page.documents])
            if not page.next_page_token:
                break
            request = replace(request, page_token=page.next_page_token)
        assert pages == [["0", "1"], ["2"], ["3", "4"]]
        every = GetRequest(collection, ["0", "1", "2", "3", "4"])
        with pytest.raises(CallerError) as caught:
            engine.run(engine.documents.get(every))
        assert caught.value.reason == "ANSWER_TOO_LARGE"
        assert len(engine.run(engine.documents.get(replace(every, parts=Parts(text=False)))).documents) == 5


def test_parts_leave_out_what_was_not_asked_for(engine: Engine, plain: str) -> None:
    """Id, title and parent always come; text, metadata and vector as asked."""
    sent = DocumentInput("a", "text", "title", "parent", {"k": 1})
    request = UpsertRequest(plain, [sent], packed(np.eye(1, DIMENSIONS, dtype=np.float32)))
    token = engine.run(engine.documents.upsert(request)).write_token
    bare = engine.run(engine.documents.get(GetRequest(plain, ["a"], Parts(text=False, metadata=False), [token])))
    assert bare.documents == [Document("a", "", "title", "parent", {})]
    assert bare.vectors is None
    listed = engine.run(engine.documents.list(ListRequest(plain, parts=Parts(vector=True))))
    np.testing.assert_array_equal(unpacked(listed.vectors), np.eye(1, DIMENSIONS))


def test_a_read_whose_replica_is_held_up_says_by_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a full disk it names the disk, not a retry, and a command that ends so ends as what lacks room does."""

    def apply(*_: object) -> None:
        raise StorageFullError("appending rows")

    with Engine(tmp_path) as engine:
        collection = engine.create("c")
        with monkeypatch.context() as full:
            full.setattr(Mirror, "apply", apply)
            token = engine.put(collection, ["a"], np.ones((1, DIMENSIONS), np.float32))
            replica = engine.replicas.get("c")
            eventually(lambda: replica.held_up is not None)
            with pytest.raises(DeadlineError, match=r"held up: .*disk.*appending rows") as caught:
                engine.run(
                    engine.documents.count(
                        CountRequest(collection, read_after=[token]), deadline=time.monotonic() + 0.05
                    )
                )
        assert caught.value.reason == "READ_AFTER_HELD_UP"
        assert caught.value.remedy.startswith("Mend that")
        assert exit_code(caught.value) is ExitCode.UNAVAILABLE
        assert engine.run(engine.documents.count(CountRequest(collection, read_after=[token]))).count == 1


def test_a_read_does_not_wait_for_room_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends once it is seen that nothing but people will help, long before its own limit; later reads ask anew."""

    def apply(*_: object) -> None:
        raise StorageFullError("appending rows")

    async def soon(read: Awaitable[CountAnswer]) -> CountAnswer:
        async with asyncio.timeout(WAIT_S):
            return await read

    with Engine(tmp_path, limits=Limits(max_read_wait_s=3_600)) as engine:
        collection = engine.create("c")
        with monkeypatch.context() as full:
            full.setattr(Mirror, "apply", apply)
            token = engine.put(collection, ["a"], np.ones((1, DIMENSIONS), np.float32))
            read = CountRequest(collection, read_after=[token])
            with pytest.raises(DeadlineError, match=r"held up: .*disk.*appending rows"):
                engine.run(soon(engine.documents.count(read)))
        assert engine.run(soon(engine.documents.count(read))).count == 1


class Attempts:
    """Attempts to apply a write, each of which waits for the test to say how it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._begun, self._ends = threading.Semaphore(0), SimpleQueue[Exception | None]()
        really_apply = Mirror.apply

        def apply(mirror: Mirror, items: Sequence[Item]) -> None:
            self._begun.release()
            error = self._ends.get(timeout=WAIT_S)
            if error is not None:
                raise error
            really_apply(mirror, items)

        monkeypatch.setattr(Mirror, "apply", apply)

    def end(self, error: Exception | None = None) -> None:
        self._ends.put(error)

    async def begun(self) -> None:
        """Wait for the next one."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=WAIT_S)


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (StorageFullError("appending rows"), 1),  # of an attempt from before the read: the disk may have room by now
        (OSError(errno.EMFILE, "Too many open files"), 3),  # handles come back by themselves
    ],
)
def test_a_read_waits_for_what_may_end_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, failures: int
) -> None:
    """It is ended by what only people mend, and by nothing but an attempt that began after it."""
    monkeypatch.setattr(reading, "_HELD_UP_WAIT_S", 0.0)
    monkeypatch.setattr(reading, "_LOOK_S", 0.0)

    async def read(replica: Replica, attempts: Attempts, count: Coroutine[None, None, CountAnswer]) -> CountAnswer:
        await attempts.begun()
        attempts.end(error)
        await attempts.begun()  # the second: only from then on has the trouble lasted
        answer = asyncio.create_task(count)
        await asyncio.to_thread(eventually, lambda: replica.waiters)
        for _ in range(failures):
            attempts.end(error)
            await attempts.begun()
        for _ in range(100):  # many looks of the read at what holds it up
            await asyncio.sleep(0)
        assert not answer.done()
        attempts.end()
        return await answer

    with Engine(tmp_path, limits=Limits(max_read_wait_s=3_600)) as engine:
        collection, attempts = engine.create("c"), Attempts(monkeypatch)
        token = engine.put(collection, ["a"], np.ones((1, DIMENSIONS), np.float32))
        count = engine.documents.count(CountRequest(collection, read_after=[token]))
        assert engine.run(read(engine.replicas.get("c"), attempts, count)).count == 1


def test_a_read_that_cannot_see_its_write_in_time_says_how_far_it_got(tmp_path: Path) -> None:
    """The deadline passes, the reason is constant, the positions are there for a program."""
    with Engine(tmp_path, following=False) as engine:
        collection = engine.create("c")
        token = engine.put(collection, ["a"], np.ones((1, DIMENSIONS), np.float32))
        request = CountRequest(collection, read_after=[token])
        with pytest.raises(DeadlineError) as caught:
            engine.run(engine.documents.count(request, deadline=time.monotonic() + 0.05))
        assert caught.value.reason == "READ_AFTER_TIMEOUT"
        assert {"position": "0", "wanted": "1", "lag": "1"}.items() <= caught.value.metadata.items()
        engine.replicas.start()
        assert engine.run(engine.documents.count(request)).count == 1


def test_a_state_can_be_carried_to_another_read(engine: Engine, plain: str) -> None:
    """The token of a read state names at least what was seen; an empty collection has none."""
    empty = engine.run(engine.documents.count(CountRequest(plain))).read_state
    assert (empty.position, empty.token, empty.commit_at) == (0, "", None)
    token = engine.put(plain, ["a"], np.ones((1, DIMENSIONS), np.float32))
    state = engine.run(engine.documents.count(CountRequest(plain, read_after=[token, token]))).read_state
    assert state.token == token
    assert state.head >= state.position == 1
    assert not state.history_changed


def test_a_passed_deadline_writes_nothing(engine: Engine, texts: str, plain: str) -> None:
    """Neither an upsert nor a delete begins after its deadline."""
    late = time.monotonic() - 1
    one = UpsertRequest(plain, [DocumentInput("a")], packed(np.ones((1, DIMENSIONS), np.float32)))
    for call in (
        engine.documents.upsert(UpsertRequest(texts, [DocumentInput("a", "cat")]), deadline=late),
        engine.documents.upsert(one, deadline=late),
        engine.documents.delete(DeleteRequest(plain, ids=["a"]), deadline=late),
    ):
        with pytest.raises(DeadlineError):
            engine.run(call)
    heads = engine.store.heads()
    ids = {engine.replicas.get(name.split("/")[1]).collection.id for name in (texts, plain)}
    assert all(heads[each].position == 0 for each in ids)


def test_a_deadline_during_the_commit_has_a_reason_of_its_own() -> None:
    """The write may yet take effect, so it must not look like a call that did nothing."""
    write: Future[int] = Future()
    with pytest.raises(WriteOutcomePendingError, match="may take effect"):
        asyncio.run(outcome_of(write, time.monotonic() - 1, repeatable=True))
    assert not write.cancelled()


def test_an_upsert_that_the_model_cannot_take_is_refused_as_overload(tmp_path: Path) -> None:
    """The bounded queue says no instead of growing, and nothing is written."""
    with (
        tiny_embedder(tmp_path / "models", max_queued_tokens=16) as small,
        Engine(tmp_path / "data", {"tiny": small}) as engine,
    ):
        collection = engine.create("c", model="models/tiny")
        with pytest.raises(OverloadedError):
            engine.run(engine.documents.upsert(UpsertRequest(collection, [DocumentInput("a", "cat " * 50)])))
        assert all(head.position == 0 for head in engine.store.heads().values())


def test_an_overloaded_store_refuses_the_write(engine: Engine, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own error reaches the caller unchanged."""
    refused: Future[object] = Future()
    refused.set_exception(StoreOverloadedError(1))
    monkeypatch.setattr(engine.store, "write", lambda *_: refused)
    with pytest.raises(StoreOverloadedError):
        engine.put(plain, ["a"], np.ones((1, DIMENSIONS), np.float32))


class Awaited(Future[Embeddings]):
    """A future that tells when somebody begins to wait for it."""

    def __init__(self, awaited: Callable[[], object]) -> None:
        super().__init__()
        self._awaited = awaited

    def add_done_callback(self, fn: Callable[[Future[Embeddings]], object]) -> None:
        super().add_done_callback(fn)
        self._awaited()


def test_a_caller_that_leaves_while_embedding_stops_the_work(
    engine: Engine, embedder: Embedder, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place in the model's queue is given up and nothing is written."""

    async def leave() -> Awaited:
        awaited = asyncio.Event()
        embedding = Awaited(awaited.set)
        monkeypatch.setattr(embedder, "submit", lambda *_, **__: embedding)
        call = asyncio.create_task(engine.documents.upsert(UpsertRequest(texts, [DocumentInput("a", "cat")])))
        await awaited.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return embedding

    assert engine.run(leave()).cancelled()


def test_a_caller_that_leaves_before_the_embedding_began_stops_it_too(
    engine: Engine, embedder: Embedder, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread submits after the caller has left is given up at once."""
    left, cancelled = threading.Event(), threading.Event()
    embedding: Future[Embeddings] = Future()
    embedding.add_done_callback(lambda _: cancelled.set())

    async def leave() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def submit(*_: object, **__: object) -> Future[Embeddings]:
            loop.call_soon_threadsafe(begun.set)
            left.wait()
            return embedding

        monkeypatch.setattr(embedder, "submit", submit)
        call = asyncio.create_task(engine.documents.upsert(UpsertRequest(texts, [DocumentInput("a", "cat")])))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    engine.run(leave())
    left.set()
    assert cancelled.wait(10)


def test_a_caller_that_leaves_while_writing_does_not_undo(
    engine: Engine, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write goes on and is read afterwards."""
    written: list[Future[object]] = []

    async def leave() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        real = engine.store.write

        def write(collection_id: int, changes: list[Upsert], *rest: object) -> Future[object]:
            future = real(collection_id, changes)
            written.append(future)  # type: ignore[arg-type]
            loop.call_soon_threadsafe(begun.set)
            return Future()  # which never resolves: the caller leaves before it is told

        monkeypatch.setattr(engine.store, "write", write)
        request = UpsertRequest(plain, [DocumentInput("a")], packed(np.ones((1, DIMENSIONS), np.float32)))
        call = asyncio.create_task(engine.documents.upsert(request))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    engine.run(leave())
    written[0].result()
    monkeypatch.undo()
    head = engine.store.heads()[engine.replicas.get(plain.split("/")[1]).collection.id]
    assert head.position == 1


def test_a_collection_of_another_model_reads_but_does_not_embed(tmp_path: Path, embedder: Embedder) -> None:
    """After a change of model everything stored is served; text is refused with what to do."""
    with Engine(tmp_path / "data", {"tiny": embedder}) as engine:
        collection = engine.create("c", model="models/tiny")
        made = embedder.embed(["cat"])
        token = engine.run(engine.documents.upsert(UpsertRequest(collection, [DocumentInput("a", "cat")]))).write_token
    with Engine(tmp_path / "data") as engine:
        assert engine.run(engine.documents.count(CountRequest(collection, read_after=[token]))).count == 1
        with pytest.raises(CallerError) as caught:
            engine.run(engine.documents.upsert(UpsertRequest(collection, [DocumentInput("a", "dog")])))
        assert caught.value.reason == "FINGERPRINT_MISMATCH"
        assert all(f"embedding.{each}" in caught.value.remedy for each in ("models", "on_demand", "precision"))
        own = packed(made.vectors, made.fingerprint)
        engine.run(engine.documents.upsert(UpsertRequest(collection, [DocumentInput("b", "cat")], own)))


def test_collections_come_and_go(tmp_path: Path, embedder: Embedder) -> None:
    """A collection is described as created, listed in pages by name, and gone at once when deleted."""
    with Engine(tmp_path, {"tiny": embedder}) as engine:
        made = engine.run(engine.collections.create(CollectionInput("b", "models/tiny", embedder.fingerprint(), 32)))
        assert (made.name, made.model, made.dimensions) == ("collections/b", "models/tiny", 32)
        assert made.fingerprint == embedder.fingerprint()
        assert made.status.document_count == 0
        engine.create("a")
        engine.create("c")
        engine.put("collections/a", ["x"], np.ones((1, DIMENSIONS), np.float32))
        first = engine.run(engine.collections.list(ListCollectionsRequest(page_size=2)))
        second = engine.run(engine.collections.list(ListCollectionsRequest(2, first.next_page_token)))
        assert [each.name for each in [*first.collections, *second.collections]] == [
            "collections/a",
            "collections/b",
            "collections/c",
        ]
        assert not second.next_page_token
        engine.run(engine.collections.delete("collections/b"))
        with pytest.raises(CollectionNotFoundError):
            engine.run(engine.collections.get("collections/b"))
        with pytest.raises(CollectionNotFoundError):
            engine.run(engine.collections.delete("collections/b"))
        again = engine.run(engine.collections.create(CollectionInput("b", dimensions=3)))
        assert again.uid > made.uid


def test_a_collection_that_is_being_loaded_can_be_described(tmp_path: Path) -> None:
    """After a restart GetCollection answers before the index is there; a search says that it is loading."""
    with Engine(tmp_path) as engine:
        collection = engine.create("c")
        engine.put(collection, ["a"], np.ones((1, DIMENSIONS), np.float32))
    with Engine(tmp_path, following=False) as engine:
        made = engine.run(engine.collections.get(collection))
        assert (made.status.building, made.status.document_count) == (True, 0)
        with pytest.raises(UnavailableError) as caught:
            engine.run(engine.documents.count(CountRequest(collection)))
        assert caught.value.reason == "INDEX_LOADING"


def test_collections_are_listed_before_the_first_look_at_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server just started lists what the store holds, and does not say that there is nothing when it cannot ask."""
    with Engine(tmp_path) as engine:
        collection = engine.create("c")
    with Engine(tmp_path, following=False) as engine:

        def away(_: object) -> None:
            raise UnavailableError("The store is away.")

        with monkeypatch.context() as patched:
            patched.setattr("nearshore.store.sqlite.SqliteStore.list_collections", away)
            with pytest.raises(UnavailableError):
                engine.run(engine.collections.list(ListCollectionsRequest()))
        (listed,) = engine.run(engine.collections.list(ListCollectionsRequest())).collections
        assert (listed.name, listed.status.building) == (collection, True)


def test_a_write_that_meets_the_deletion_of_its_collection_names_it(tmp_path: Path, embedder: Embedder) -> None:
    """The store knows a collection by number; the caller is told the name that it sent."""
    with Engine(tmp_path, {"tiny": embedder}, following=False) as engine:
        for name, model in (("plain", ""), ("texts", "models/tiny")):
            collection = engine.create(name, model=model)
            engine.store.delete_collection(engine.replicas.get(name).collection.id)
            one = None if model else packed(np.ones((1, DIMENSIONS), np.float32))
            calls = [
                engine.documents.upsert(UpsertRequest(collection, [DocumentInput("a", "cat")], one)),
                engine.documents.delete(DeleteRequest(collection, ids=["a"])),
                engine.collections.delete(collection),
            ]
            for call in calls:
                with pytest.raises(CollectionNotFoundError) as caught:
                    engine.run(call)
                assert caught.value.metadata["collection"] == name
