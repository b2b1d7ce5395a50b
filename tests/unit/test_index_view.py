"""Searching a view with a graph: recall under filters and deletes, honest answers, immutability under writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearshore.index import Found, IndexOptions, IndexView, Segment
from nearshore.index.filters import parse
from nearshore.records import F32, Document, IndexKind, Metric

DIMENSIONS = 16
ROWS = 6000
OPTIONS = IndexOptions(max_tail_rows=500, max_dead_share=0.9)


def _vectors(count: int, seed: int) -> F32:
    """Clustered unit vectors (count, 16)."""
    centres = np.random.default_rng(0).standard_normal((60, DIMENSIONS))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 60, count)] + 0.6 * rng.standard_normal((count, DIMENSIONS))
    normalized: F32 = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return normalized


def _filled(folder: Path, metric: Metric, vectors: F32) -> Segment:
    segment = Segment(folder, dimensions=vectors.shape[1], metric=metric, kind=IndexKind.HNSW, options=OPTIONS)
    near_first = np.argsort(np.argsort(-vectors[:, 0]))  # so that a filter can go with or against a query
    segment.append(vectors, [Document(f"{rank}", "", metadata={"rank": rank}) for rank in near_first.tolist()])
    plan = segment.pending_build()
    assert plan is not None
    segment.adopt(plan.run())
    return segment


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    filled = _filled(tmp_path_factory.mktemp("segment"), Metric.COSINE, _vectors(ROWS, 1))
    filled.append(_vectors(200, 2), [Document(f"tail{row}", "") for row in range(200)])
    yield filled
    filled.close()


def _recall(view: IndexView, queries: F32, condition: str = "", k: int = 10) -> float:
    """recall@k against exact search; equal scores count as equal. Never fewer hits than exist."""
    allowed = view.mask(parse(condition)) if condition else None
    right = wanted = 0
    for query in queries:
        found = view.search(query, k=k, allowed=allowed)
        exact = view.search(query, k=k, allowed=allowed, exact=True)
        assert len(found.rows) == len(exact.rows) == min(k, exact.candidates)
        wanted += len(exact.rows)
        right += int(np.count_nonzero(found.scores >= exact.scores[-1])) if len(exact.rows) else 0
    return right / max(wanted, 1)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "rank < 3000",
        "rank >= 3000",
        "rank < 1200",
        "rank >= 5000",
        "rank < 60",
        "rank < 6",
        "NOT rank:*",
    ],
)
def test_recall_holds_under_filters(segment: Segment, condition: str) -> None:
    """Whether a filter keeps half or none of the rows, the near or the far ones, the closest of them are found."""
    assert _recall(segment.publish(), _vectors(40, 3), condition) >= 0.98


def test_no_match_is_no_hit(segment: Segment) -> None:
    """A filter that nothing matches gives an empty, exact answer."""
    view = segment.publish()
    found = view.search(_vectors(1, 3)[0], k=10, allowed=view.mask(parse("rank = -1")))
    assert (len(found.rows), found.exact, found.scanned, found.candidates) == (0, True, 0, 0)


def test_recall_holds_under_deletes(segment: Segment) -> None:
    """With the nearest 130 rows of a query dead, the nearest live ones are still found."""
    view = segment.publish()
    alive = view.alive.copy()
    queries = _vectors(10, 4)
    for query in queries:
        alive[view.search(query, k=130, exact=True).rows] = False
    thinned = IndexView(view.rows, alive, int(alive.sum()), view.columns, view.sealed, view.metric, view.generation)
    assert _recall(thinned, queries) >= 0.98


def test_answers_are_honest(segment: Segment) -> None:
    """exact, scanned, ef and candidates say what was done."""
    view = segment.publish()
    query = _vectors(1, 5)[0]
    graph = view.search(query, k=10)
    assert (graph.exact, graph.ef, graph.candidates) == (False, 128, ROWS + 200)
    assert graph.scanned == 128 + 200
    forced = view.search(query, k=10, exact=True)
    assert (forced.exact, forced.ef, forced.scanned) == (True, 0, ROWS + 200)
    few = view.search(query, k=10, allowed=view.mask(parse("rank < 100")))
    assert (few.exact, few.ef, few.scanned, few.candidates) == (True, 0, 100, 100)
    assert len(view.search(query, k=10_000).rows) == ROWS + 200


def test_a_document_scores_the_same_in_every_search(segment: Segment) -> None:
    """Exact and approximate, filtered and not: one row's score is bit-equal."""
    view = segment.publish()
    query = _vectors(1, 6)[0]
    reference = dict(zip(*_pairs(view.search(query, k=ROWS, exact=True)), strict=True))
    for condition in ("", "rank < 4000", "rank < 40"):
        found = view.search(query, k=20, allowed=view.mask(parse(condition)) if condition else None)
        for row, score in zip(*_pairs(found), strict=True):
            assert reference[row] == score


def _pairs(found: Found) -> tuple[list[int], list[float]]:
    return found.rows.tolist(), found.scores.tolist()


def test_threshold_keeps_only_hits_that_reach_it(segment: Segment) -> None:
    """A score threshold drops hits below it, keeps those at it, and leaves the rest of the answer alone."""
    view = segment.publish()
    query = _vectors(1, 7)[0]
    full = view.search(query, k=10)
    cut = view.search(query, k=10, score_threshold=float(full.scores[4]))
    assert cut.rows.tolist() == full.rows[:5].tolist()
    assert (cut.candidates, cut.scanned) == (full.candidates, full.scanned)
    assert len(view.search(query, k=10, score_threshold=2.0).rows) == 0


def test_a_query_of_another_width_is_refused(segment: Segment) -> None:
    """A query that does not fit raises instead of reading beyond it."""
    with pytest.raises(ValueError, match="reshape"):
        segment.publish().search(np.ones(DIMENSIONS - 1, np.float32), k=1, exact=True)


def test_inner_product_of_unequal_norms_keeps_its_recall(tmp_path: Path) -> None:
    """With norms from 1 to 10, the graph still finds the largest inner products."""
    norms = np.random.default_rng(8).uniform(1, 10, (ROWS, 1)).astype(np.float32)
    filled = _filled(tmp_path, Metric.DOT, _vectors(ROWS, 9) * norms)
    assert not filled.publish().search(_vectors(1, 10)[0], k=10).exact
    assert _recall(filled.publish(), _vectors(40, 10)) >= 0.98
    filled.close()


def test_rows_beyond_the_codes_range_train_them_anew(tmp_path: Path) -> None:
    """Vectors a hundred times as long as those the codes were trained on are found as well as the others."""
    filled = _filled(tmp_path, Metric.EUCLIDEAN, _vectors(ROWS, 11))
    filled.append(100 * _vectors(ROWS, 12), [Document(f"far{row}", "") for row in range(ROWS)])
    plan = filled.pending_build()
    assert plan is not None
    filled.adopt(plan.run())
    view = filled.publish()
    assert view.sealed_rows == 2 * ROWS
    assert not view.search(100 * _vectors(1, 13)[0], k=10).exact
    assert _recall(view, 100 * _vectors(40, 13)) >= 0.98
    filled.close()


def test_searches_run_while_the_segment_changes(tmp_path: Path) -> None:
    """Threads search published views without interruption while rows are appended, killed, sealed and rebuilt."""
    changing = _filled(tmp_path, Metric.COSINE, _vectors(ROWS, 14))
    published = [changing.publish()]
    stop = threading.Event()
    failures: list[BaseException] = []

    def search() -> None:
        queries = _vectors(50, 15)
        try:
            while not stop.is_set():
                view = published[-1]
                for query in queries:
                    found = view.search(query, k=10, allowed=view.mask(parse("rank < 5000 OR NOT rank:*")))
                    assert len(found.rows) == 10
                    assert view.alive[found.rows].all()
        except BaseException as error:  # handed to the test
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(6):
        changing.append(_vectors(600, 20 + step), [Document(f"new{row}", "") for row in range(600)])
        changing.kill(range(step * 300, step * 300 + 300))
        published.append(changing.publish())
        plan = changing.pending_build()
        if plan is not None:
            changing.adopt(plan.run())
            published.append(changing.publish())
    stop.set()
    for thread in threads:
        thread.join()
    changing.close()
    assert failures == []
