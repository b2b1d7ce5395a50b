"""What a search finds, held against brute force over the same vectors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.documents.limits import Limits
from nearshore.documents.requests import DeleteRequest, DocumentInput, Parts, RawValue, UpsertRequest
from nearshore.embedding import Embedder
from nearshore.errors import DeadlineError, NearshoreError, OverloadedError
from nearshore.index.filters import parse
from nearshore.records import F32, Document, FewerReason, Metric
from nearshore.search.requests import BatchSearchRequest, SearchAnswer, SearchRequest
from tests.engine import DIMENSIONS, Engine, packed, tiny_embedder, unpacked

NAMES = (f"c{number}" for number in count())


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


def ids_of(answer: SearchAnswer) -> list[str]:
    return [hit.document.id for hit in answer.hits]


def score(query: F32, vectors: F32, metric: Metric) -> F32:
    """Scores (n,) by the definition."""
    query, vectors = query.astype(np.float64), vectors.astype(np.float64)
    if metric is Metric.COSINE:
        query, vectors = query / np.linalg.norm(query), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if metric is Metric.EUCLIDEAN:
        return -np.linalg.norm(vectors - query, axis=1)  # type: ignore[no-any-return]
    return vectors @ query


# Few values on purpose: many equal scores. Sums of such products are exact in float32 for dot.
components = st.sampled_from([-1.0, 0.0, 1.0, 2.0])
rows = st.lists(components, min_size=DIMENSIONS, max_size=DIMENSIONS).filter(any)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Metric, F32, list[dict[str, RawValue]], SearchRequest]:
    """A collection's content and one search in it."""
    vectors = np.array(draw(st.lists(rows, min_size=1, max_size=25)), np.float32)
    groups = draw(st.lists(st.integers(0, 2), min_size=len(vectors), max_size=len(vectors)))
    request = SearchRequest(
        "",
        vector=packed(np.array([draw(rows)], np.float32)),
        limit=draw(st.integers(1, 8)),
        offset=draw(st.integers(0, 6)),
        filter=draw(st.sampled_from(["", "group = 1", "group = (0 OR 2)", "group > 5"])),
        score_threshold=draw(st.none() | st.sampled_from([-0.75, 0.25, 1.5])),
        exact=draw(st.booleans()),
        parts=Parts(vector=True),
    )
    return draw(st.sampled_from(list(Metric))), vectors, [{"group": group} for group in groups], request


@settings(max_examples=80)
@given(situation=situations())
def test_hits_are_those_of_brute_force(
    engine: Engine, situation: tuple[Metric, F32, list[dict[str, RawValue]], SearchRequest]
) -> None:
    """Filter, threshold, offset and limit hold; equal scores come in the order of their ids; the reason is right."""
    metric, vectors, metadata, request = situation
    collection = engine.create(next(NAMES), metric=metric)
    ids = [f"{(7 * each) % 25:02}" for each in range(len(vectors))]
    token = engine.put(collection, ids, vectors, metadata)
    answer = engine.run(engine.searcher.search(replace(request, collection=collection, read_after=[token])))
    scores = dict(zip(ids, score(unpacked(request.vector)[0], vectors, metric).tolist(), strict=True))
    tree = parse(request.filter) if request.filter else None
    kept = [
        each
        for each, row in zip(ids, metadata, strict=True)
        if tree is None or tree.matches(Document(each, "", metadata=row))  # type: ignore[arg-type]
    ]
    reaching = [each for each in kept if request.score_threshold is None or scores[each] >= request.score_threshold]
    reaching.sort(key=lambda each: (-round(scores[each], 5), each))
    assert request.limit is not None
    expected = reaching[request.offset : request.offset + request.limit]
    np.testing.assert_allclose([hit.score for hit in answer.hits], [scores[each] for each in expected], atol=1e-5)
    if metric is Metric.DOT:
        assert ids_of(answer) == expected
    stored = dict(zip(ids, vectors, strict=True))
    found = unpacked(answer.vectors)
    assert len(found) == len(answer.hits)
    for hit, vector in zip(answer.hits, found, strict=True):
        np.testing.assert_allclose(score(vector, stored[hit.document.id][None], Metric.COSINE), [1], atol=1e-6)
        assert hit.score == pytest.approx(scores[hit.document.id], abs=1e-5)
    assert answer.exact
    if len(expected) == request.limit:
        assert answer.fewer_reason is FewerReason.NONE
    elif len(reaching) < len(kept):
        assert answer.fewer_reason is FewerReason.SCORE_THRESHOLD
    elif len(kept) < len(ids):
        assert answer.fewer_reason is FewerReason.FILTER
    else:
        assert answer.fewer_reason is FewerReason.COLLECTION


def test_pages_of_equal_scores_neither_repeat_nor_skip(engine: Engine) -> None:
    """A hundred copies of one vector, walked by offset, come in the order of their ids."""
    collection = engine.create(next(NAMES))
    ids = [f"{(37 * each) % 100:02}" for each in range(100)]
    token = engine.put(collection, ids, np.ones((100, DIMENSIONS), np.float32))
    query = packed(np.ones((1, DIMENSIONS), np.float32))
    walked: list[str] = []
    for offset in range(0, 100, 7):
        request = SearchRequest(collection, vector=query, limit=7, offset=offset, read_after=[token])
        walked += ids_of(engine.run(engine.searcher.search(request)))
    assert walked == sorted(ids)


def test_a_document_as_query_is_left_out(engine: Engine) -> None:
    """Its copies are found, itself never; alone it finds nothing and says why."""
    collection = engine.create(next(NAMES))
    vectors = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]], np.float32)
    token = engine.put(collection, ["a", "b", "c", "d"], vectors, [{"k": 1}, {}, {}, {}])
    request = SearchRequest(collection, document_id="a", read_after=[token])
    answer = engine.run(engine.searcher.search(request))
    assert ids_of(answer) == ["b", "c", "d"]
    assert answer.fewer_reason is FewerReason.COLLECTION
    assert ids_of(engine.run(engine.searcher.search(replace(request, limit=1, offset=1)))) == ["c"]
    alone = engine.run(engine.searcher.search(replace(request, filter="k = 1")))
    assert (ids_of(alone), alone.fewer_reason) == ([], FewerReason.FILTER)
    near = engine.run(engine.searcher.search(replace(request, score_threshold=0.99)))
    assert (ids_of(near), near.fewer_reason) == (["b"], FewerReason.SCORE_THRESHOLD)


def test_a_threshold_that_cuts_nothing_is_not_the_reason(engine: Engine) -> None:
    """Even when the query document is left out of what was found."""
    collection = engine.create(next(NAMES))
    token = engine.put(collection, ["a", "b"], np.ones((2, DIMENSIONS), np.float32))
    request = SearchRequest(collection, document_id="a", score_threshold=0.5, read_after=[token])
    assert engine.run(engine.searcher.search(request)).fewer_reason is FewerReason.COLLECTION


def test_an_empty_collection_answers(engine: Engine) -> None:
    """No hits, exact, position 0."""
    collection = engine.create(next(NAMES))
    answer = engine.run(engine.searcher.search(SearchRequest(collection, vector=packed(np.ones((1, 4), np.float32)))))
    assert (list(answer.hits), answer.exact, answer.fewer_reason) == ([], True, FewerReason.COLLECTION)
    assert answer.read_state.position == 0


def test_a_text_query_finds_the_text(engine: Engine, embedder: Embedder) -> None:
    """It is scored by the model's own vectors, and the answer tells tokens and times."""
    collection = engine.create(next(NAMES), model="models/tiny")
    texts = ["the cat is red", "a fish in the river", "python code", "light music"]
    sent = [DocumentInput(str(each), text) for each, text in enumerate(texts)]
    token = engine.run(engine.documents.upsert(UpsertRequest(collection, sent))).write_token
    request = SearchRequest(collection, text="python code", read_after=[token])
    answer = engine.run(engine.searcher.search(request))
    assert ids_of(answer)[0] == "2"
    assert answer.hits[0].score == pytest.approx(1, abs=1e-6)
    assert (answer.query_tokens, answer.query_tokens_used) == (4, 4)
    assert answer.embedding_s > 0
    assert answer.index_s > 0
    made = embedder.embed(["python code"])
    by_vector = replace(request, text=None, vector=packed(made.vectors, made.fingerprint))
    assert engine.run(engine.searcher.search(by_vector)).hits == answer.hits
    long = engine.run(engine.searcher.search(replace(request, text="cat " * 3_000)))
    assert (long.query_tokens, long.query_tokens_used) == (3_002, 64)


@settings(max_examples=15)
@given(data=st.data())
def test_a_batch_answers_as_its_searches_alone_would(engine: Engine, data: st.DataObject) -> None:
    """Texts, vectors and documents mixed, each with its own filter and parts, all at one state."""
    collection = engine.create(next(NAMES), model="models/tiny")
    texts = ["the cat is red", "a fish in the river", "python code", "light music"]
    sent = [DocumentInput(str(each), text, metadata={"n": each}) for each, text in enumerate(texts)]
    token = engine.run(engine.documents.upsert(UpsertRequest(collection, sent))).write_token
    one = st.one_of(
        st.sampled_from(["cat", "red fish", "what code"]).map(lambda text: SearchRequest("", text=text)),
        st.sampled_from("0123").map(lambda each: SearchRequest("", document_id=each)),
    )
    limits, filters = st.integers(1, 5), st.sampled_from(["", "n < 2", "n >= 2"])
    parts = st.builds(Parts, st.booleans(), st.booleans(), st.booleans())
    searches = [
        replace(data.draw(one), limit=data.draw(limits), filter=data.draw(filters), parts=data.draw(parts))
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    batch = engine.run(engine.searcher.batch(BatchSearchRequest(collection, searches, [token])))
    alone = [engine.run(engine.searcher.search(replace(each, collection=collection))) for each in searches]
    for together, single in zip(batch.results, alone, strict=True):
        assert comparable(together) == comparable(single)
    assert len({each.read_state.token for each in batch.results}) == 1


def test_a_batch_tells_numbers_from_true_and_false(engine: Engine) -> None:
    """Filters that Python would call equal are answered each for itself; 1 and 1.0 find the same."""
    collection = engine.create(next(NAMES))
    values: list[RawValue] = [1, True, 0, False]
    metadata = [{"x": value} for value in values]
    token = engine.put(collection, list("abcd"), np.ones((4, DIMENSIONS), np.float32), metadata)
    query = packed(np.ones((1, DIMENSIONS), np.float32))
    filters = ["x = 1", "x = true", "x = 1.0", "x = 0", "x = false"]
    searches = [SearchRequest("", vector=query, filter=f"{each} AND x:*") for each in filters]
    batch = engine.run(engine.searcher.batch(BatchSearchRequest(collection, searches, [token])))
    assert [ids_of(each) for each in batch.results] == [["a"], ["b"], ["a"], ["c"], ["d"]]


def comparable(answer: SearchAnswer) -> SearchAnswer:
    """An answer without its times."""
    return replace(answer, embedding_s=0, index_s=0, read_state=replace(answer.read_state, contact_age_s=0))


def test_an_update_or_a_delete_is_seen_by_the_search_that_carries_its_token(engine: Engine) -> None:
    """Never both versions, never neither."""
    collection = engine.create(next(NAMES))
    vectors = np.eye(DIMENSIONS, dtype=np.float32)
    engine.put(collection, list("abcd"), vectors)
    for step in range(20):
        token = engine.put(collection, ["a"], vectors[step % DIMENSIONS][None])
        request = SearchRequest(collection, vector=packed(vectors[step % DIMENSIONS][None]), read_after=[token])
        answer = engine.run(engine.searcher.search(request))
        assert sorted(ids_of(answer)) == list("abcd")
        assert answer.hits[0].score == pytest.approx(1)
        assert "a" in ids_of(answer)[:2]
    token = engine.run(engine.documents.delete(DeleteRequest(collection, ids=["a"]))).write_token
    gone = engine.run(engine.searcher.search(replace(request, read_after=[token])))
    assert sorted(ids_of(gone)) == list("bcd")


def test_a_search_past_its_deadline_is_given_up(engine: Engine) -> None:
    """Text or vector, alone or in a batch."""
    collection = engine.create(next(NAMES), model="models/tiny")
    request = SearchRequest(collection, text="cat")
    late = time.monotonic() - 1
    with pytest.raises(DeadlineError):
        engine.run(engine.searcher.search(request, deadline=late))
    with pytest.raises(DeadlineError):
        engine.run(engine.searcher.batch(BatchSearchRequest(collection, [request]), deadline=late))


def test_an_overloaded_model_refuses_the_query(tmp_path: Path) -> None:
    """The reason is OVERLOADED, and vector queries go on."""
    with (
        tiny_embedder(tmp_path / "models", max_queued_tokens=8) as small,
        Engine(tmp_path / "data", {"tiny": small}) as engine,
    ):
        collection = engine.create("c", model="models/tiny")
        with pytest.raises(OverloadedError):
            engine.run(engine.searcher.search(SearchRequest(collection, text="cat " * 30)))
        vector = packed(np.ones((1, 32), np.float32), small.fingerprint())
        assert engine.run(engine.searcher.search(SearchRequest(collection, vector=vector))).exact


def test_an_answer_that_no_message_holds_is_refused(tmp_path: Path) -> None:
    """Alone and summed over a batch; without text it fits."""
    with Engine(tmp_path, limits=Limits(max_message_bytes=5_000)) as engine:
        collection = engine.create("c")
        sent = [DocumentInput(str(each), "x" * 1_000) for each in range(4)]
        vectors = packed(np.ones((4, DIMENSIONS), np.float32))
        token = engine.run(engine.documents.upsert(UpsertRequest(collection, sent, vectors))).write_token
        one = SearchRequest("", vector=packed(np.ones((1, DIMENSIONS), np.float32)))
        assert len(engine.run(engine.searcher.batch(BatchSearchRequest(collection, [one], [token]))).results) == 1
        with pytest.raises(NearshoreError) as caught:
            engine.run(engine.searcher.batch(BatchSearchRequest(collection, [one, one])))
        assert caught.value.reason == "ANSWER_TOO_LARGE"
        bare = replace(one, parts=Parts(text=False))
        assert len(engine.run(engine.searcher.batch(BatchSearchRequest(collection, [bare] * 5))).results) == 5
