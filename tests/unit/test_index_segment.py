"""The writer's side: whatever is appended, killed, built and adopted, every view answers for its own moment."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nearshore.index import BuildCancelled, IndexOptions, IndexView, Segment, save
from nearshore.index.filters import parse
from nearshore.records import F32, Document, IndexKind, Metric

DIMENSIONS = 4
OPTIONS = IndexOptions(exact_rows=150, max_tail_rows=100, max_dead_share=0.3)


@dataclass
class Moment:
    """A view and what it must show."""

    view: IndexView
    vectors: F32
    numbers: list[int]  # of the document in each row
    alive: list[bool]


class SegmentMachine(RuleBasedStateMachine):
    """Random life of a segment beside a plain list of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.vectors = np.empty((0, DIMENSIONS), np.float32)
        self.numbers: list[int] = []
        self.alive: list[bool] = []
        self.moments: list[Moment] = []
        self.saves = 0

    @initialize(metric=st.sampled_from(Metric), kind=st.sampled_from(IndexKind))
    def create(self, metric: Metric, kind: IndexKind) -> None:
        self.metric, self.kind = metric, kind
        self.segment = Segment(self._path("work"), dimensions=DIMENSIONS, metric=metric, kind=kind, options=OPTIONS)
        self.append(170, 1)  # enough for a graph where the kind has one

    @rule(count=st.sampled_from([0, 1, 60, 110, 200]), seed=st.integers(0, 999))
    def append(self, count: int, seed: int) -> None:
        vectors = np.random.default_rng(seed).integers(-3, 4, (count, DIMENSIONS)).astype(np.float32)
        first = len(self.numbers) + seed
        numbers = list(range(first, first + count))
        assert self.segment.append(vectors, [_document(number) for number in numbers]) == len(self.numbers)
        self.vectors = np.concatenate([self.vectors, vectors])
        self.numbers += numbers
        self.alive += [True] * count

    @rule(share=st.sampled_from([0.02, 0.4, 1]), seed=st.integers(0, 999))
    def kill(self, share: float, seed: int) -> None:
        rows = np.flatnonzero(np.random.default_rng(seed).random(len(self.numbers)) < share)
        self.segment.kill(rows)
        for row in rows:
            self.alive[row] = False

    @rule()
    def publish(self) -> None:
        self.moments.append(Moment(self.segment.publish(), self.vectors.copy(), list(self.numbers), list(self.alive)))

    @rule(
        outcome=st.sampled_from(["adopted", "adopted", "adopted", "cancelled"]),
        late_count=st.integers(0, 120),
        late_share=st.sampled_from([0, 0.1, 0.9]),
        seed=st.integers(0, 999),
    )
    def build(self, outcome: str, late_count: int, late_share: float, seed: int) -> None:
        """A whole build, with appends and deaths while it runs."""
        plan = self.segment.pending_build()
        if plan is None:
            return
        assert self.segment.pending_build() is None
        self.append(late_count, seed)
        if outcome == "cancelled":
            plan.cancel()
            with pytest.raises(BuildCancelled):
                plan.run()
            self.segment.abandon()
            return
        built = plan.run()
        self.kill(late_share, seed)
        self.append(late_count // 2, seed + 1)
        self.publish()
        self._renumber(self.segment.adopt(built))
        self.publish()

    def _renumber(self, renumbered: npt.NDArray[np.int64] | None) -> None:
        if renumbered is None:
            return
        assert (renumbered >= 0).tolist() == self.alive
        old_row_of = [-1] * self.segment.row_count
        for old, new in enumerate(renumbered.tolist()):
            if new >= 0:
                old_row_of[new] = old
        self.vectors = self.vectors[old_row_of]  # rows that died during the build stay, dead
        self.numbers = [self.numbers[old] for old in old_row_of]
        self.alive = [old >= 0 for old in old_row_of]

    @rule()
    def save_and_load(self) -> None:
        folder = self._path(f"saved{self.saves}")
        folder.mkdir()
        self.saves += 1
        names = save(self.segment.publish(), folder)
        assert sorted(names) == sorted(path.name for path in folder.iterdir())
        self.segment.close()
        self.segment = Segment.load(folder, dimensions=DIMENSIONS, metric=self.metric, kind=self.kind, options=OPTIONS)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "segment"):
            assert self.segment.row_count == len(self.numbers)
            assert self.segment.live_count == sum(self.alive) == len(self.numbers) - self.segment.dead_rows

    def teardown(self) -> None:
        if hasattr(self, "segment"):
            self.publish()
            self.segment.close()
        for moment in self.moments:
            _check(moment, self.metric)
        self.moments.clear()
        self.folder.cleanup()

    def _path(self, name: str) -> Path:
        return Path(self.folder.name) / name


def _document(number: int) -> Document:
    return Document(str(number), "", metadata={"third": number % 3})


def _check(moment: Moment, metric: Metric) -> None:
    """Exact search over the view equals brute force, with and without a filter."""
    view, alive = moment.view, np.array(moment.alive, bool)
    assert view.n == len(alive)
    assert view.live == alive.sum()
    query = np.array([1, -2, 3, 0.5], np.float32)
    third = np.array([number % 3 == 1 for number in moment.numbers], bool)
    for condition, expected in ((None, alive), (parse("third = 1"), alive & third)):
        for exact in (True, False):
            found = view.search(query, k=7, allowed=view.mask(condition), exact=exact)
            scores = _scores(moment.vectors[expected], query, metric)
            assert found.candidates == len(scores)
            np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:7], rtol=1e-6)
            assert expected[found.rows].all()
            np.testing.assert_allclose(found.scores, _scores(moment.vectors[found.rows], query, metric), rtol=1e-6)
            order = list(zip(-found.scores, found.rows, strict=True))
            assert order == sorted(order)
            assert len(set(found.rows.tolist())) == len(found.rows)


def _scores(vectors: F32, query: F32, metric: Metric) -> F32:
    scores: F32 = -np.linalg.norm(vectors - query, axis=1) if metric is Metric.EUCLIDEAN else vectors @ query
    return scores


TestSegmentLife = SegmentMachine.TestCase
TestSegmentLife.settings = settings(max_examples=30, stateful_step_count=30)


def _segment(folder: Path, kind: IndexKind, options: IndexOptions = OPTIONS) -> Segment:
    return Segment(folder, dimensions=DIMENSIONS, metric=Metric.COSINE, kind=kind, options=options)


def _append(segment: Segment, count: int) -> None:
    vectors = np.random.default_rng(segment.row_count).standard_normal((count, DIMENSIONS)).astype(np.float32)
    segment.append(vectors, [_document(number) for number in range(count)])


def _build(segment: Segment) -> str:
    plan = segment.pending_build()
    if plan is None:
        return ""
    segment.adopt(plan.run())
    return plan.kind


def test_exact_kind_is_never_sealed(tmp_path: Path) -> None:
    """An EXACT collection gets no graph, however many rows it has; its dead rows are still dropped."""
    segment = _segment(tmp_path, IndexKind.EXACT)
    _append(segment, 1000)
    assert _build(segment) == ""
    segment.kill(range(500))
    assert _build(segment) == "rebuild"
    assert (segment.row_count, segment.publish().sealed_rows) == (500, 0)
    segment.close()


def test_auto_kind_is_exact_until_it_has_many_rows(tmp_path: Path) -> None:
    """An AUTO collection gets its graph beyond exact_rows, and loses it in a rebuild that finds few."""
    segment = _segment(tmp_path, IndexKind.AUTO)
    _append(segment, OPTIONS.exact_rows)
    assert _build(segment) == ""
    _append(segment, 1)
    assert _build(segment) == "seal"
    assert segment.tail_rows == 0
    segment.kill(range(100))
    assert _build(segment) == "rebuild"
    assert segment.publish().sealed is None
    segment.close()


def test_every_build_gives_a_new_generation(tmp_path: Path) -> None:
    """The generation grows by one with each adopted build, and a saved index keeps it."""
    segment = _segment(tmp_path / "work", IndexKind.HNSW)
    _append(segment, 300)
    assert [_build(segment), _build(segment)] == ["seal", ""]
    segment.kill(range(200))
    assert _build(segment) == "rebuild"
    view = segment.publish()
    assert view.generation == 2
    saved = tmp_path / "saved"
    saved.mkdir()
    save(view, saved)
    loaded = Segment.load(saved, dimensions=DIMENSIONS, metric=Metric.COSINE, kind=IndexKind.HNSW, options=OPTIONS)
    assert loaded.publish().generation == 2
    loaded.close()
    segment.close()


def test_a_build_beyond_the_budget_is_not_started(tmp_path: Path) -> None:
    """A build that would take more memory than allowed stays undone and says so; searches go on."""
    segment = _segment(tmp_path, IndexKind.HNSW, IndexOptions(max_tail_rows=100, build_memory_bytes=50_000))
    _append(segment, 300)
    assert segment.pending_build() is None
    assert "build_memory_bytes" in segment.blocked
    assert len(segment.publish().search(np.ones(DIMENSIONS, np.float32), k=5).rows) == 5
    segment.close()


def test_a_segment_leaves_no_files(tmp_path: Path) -> None:
    """close() removes the working files, those of an abandoned build too, and its views still answer."""
    segment = _segment(tmp_path, IndexKind.EXACT)
    _append(segment, 400)
    view = segment.publish()
    segment.kill(range(300))
    plan = segment.pending_build()
    assert plan is not None
    plan.run()
    segment.abandon()
    segment.close()
    assert list(tmp_path.iterdir()) == []
    assert len(view.search(np.ones(DIMENSIONS, np.float32), k=5).rows) == 5


def test_an_empty_segment_answers(tmp_path: Path) -> None:
    """A search of nothing finds nothing, exactly; an empty view can be saved and loaded."""
    segment = _segment(tmp_path / "work", IndexKind.AUTO)
    view = segment.publish()
    found = view.search(np.ones(DIMENSIONS, np.float32), k=3, allowed=view.mask(parse("k = 1")))
    assert (len(found.rows), found.exact, found.scanned) == (0, True, 0)
    saved = tmp_path / "saved"
    saved.mkdir()
    save(view, saved)
    loaded = Segment.load(saved, dimensions=DIMENSIONS, metric=Metric.COSINE, kind=IndexKind.AUTO, options=OPTIONS)
    assert loaded.row_count == 0
    loaded.close()
    segment.close()
