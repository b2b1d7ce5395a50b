"""An engine that embeds identical texts once, and keeps vectors where it is asked to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from nearshore.bundle import Bundle
from nearshore.embedding import Embedder, Form, Reuse, TokenRoom, Truncation, Workplace
from nearshore.embedding.errors import TextTooLongError
from nearshore.embedding.request import TokenIds
from nearshore.embedding.reuse import Intake
from nearshore.errors import OverloadedError, UnavailableError
from nearshore.metrics import Metrics
from nearshore.records import F32
from tests.tiny_bert import corpus, make_bundle

PATIENCE_S = 20.0
CACHE = Reuse(cache_bytes=1 << 20)
TEXTS = list(dict.fromkeys(corpus(9)))[:8]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("models"))


def total(metrics: Metrics, name: str) -> float:
    """A counter's value."""
    value = metrics.registry.get_sample_value(name)
    assert value is not None
    return value


def opened(bundle: Bundle, reuse: Reuse, metrics: Metrics | None = None) -> Embedder:
    """An engine with one worker."""
    return Embedder.open(bundle, workers=1, max_run_tokens=64, max_queued_tokens=2_000, reuse=reuse, observer=metrics)


@pytest.mark.parametrize(("share", "embedded"), [(True, 8), (False, 24)])
def test_repeated_texts_are_embedded_as_the_setting_says(bundle: Bundle, share: bool, embedded: int) -> None:
    """A text that a call repeats is embedded once, or each time where sharing is off, and has the same bits."""
    metrics = Metrics()
    with opened(bundle, Reuse(share_in_flight=share), metrics) as engine:
        vectors = engine.embed([*TEXTS, *reversed(TEXTS), *TEXTS]).vectors
        assert total(metrics, "nearshore_embedded_texts_total") == embedded
        alone = np.concatenate([engine.embed([text]).vectors for text in TEXTS])
    assert vectors.tobytes() == np.concatenate([alone, alone[::-1], alone]).tobytes()


@pytest.mark.parametrize(
    "form", [Form(), Form(dimensions=5), Form(normalize=False), Form(dimensions=3, normalize=False)]
)
def test_kept_vectors_serve_every_form(bundle: Bundle, form: Form) -> None:
    """A text that was embedded is not embedded again for another form, and has the bits that it would have anew."""
    metrics = Metrics()
    with opened(bundle, CACHE, metrics) as engine, opened(bundle, Reuse()) as plain:
        engine.embed(TEXTS)
        kept = engine.embed(TEXTS[::-1], form=form)
        anew = plain.embed(TEXTS[::-1], form=form)
    assert kept.vectors.tobytes() == anew.vectors.tobytes()
    assert (kept.tokens, kept.tokens_used, kept.fingerprint) == (anew.tokens, anew.tokens_used, anew.fingerprint)
    assert total(metrics, "nearshore_embedded_texts_total") == 8
    assert total(metrics, "nearshore_vector_cache_misses_total") == 8
    assert total(metrics, "nearshore_vector_cache_hits_total") == 8
    assert engine.cache_bytes > 8 * 4 * engine.dimensions


def test_models_share_the_room_for_kept_vectors_and_no_vector(
    tmp_path_factory: pytest.TempPathFactory, bundle: Bundle
) -> None:
    """Two models cut texts into the same ids and answer each with its own vectors; one bound holds for both."""
    other = make_bundle(tmp_path_factory.mktemp("others"), seed=7)
    metrics = Metrics()
    workplace = Workplace(workers=1, max_run_tokens=64, max_queued_tokens=2_000, reuse=CACHE, observer=metrics)
    engines = [Embedder.load(each, workplace) for each in (bundle, other)]
    first = [engine.embed(TEXTS).vectors.tobytes() for engine in engines]
    assert [engine.embed(TEXTS).vectors.tobytes() for engine in engines] == first
    assert total(metrics, "nearshore_embedded_texts_total") == 16
    assert engines[0].cache_bytes == engines[1].cache_bytes == workplace.cache_bytes
    workplace.close()
    with opened(other, Reuse()) as plain:
        assert plain.embed(TEXTS).vectors.tobytes() == first[1] != first[0]


def test_a_model_that_is_loaded_again_is_asked_again(bundle: Bundle) -> None:
    """Vectors of a model that was unloaded are never those of one that was loaded in its place."""
    metrics = Metrics()
    workplace = Workplace(workers=1, max_run_tokens=64, max_queued_tokens=2_000, reuse=CACHE, observer=metrics)
    for loads in (1, 2):
        Embedder.load(bundle, workplace).embed(TEXTS)
        assert total(metrics, "nearshore_vector_cache_misses_total") == 8 * loads
    workplace.close()


def test_what_a_caller_does_to_its_vectors_stays_with_it(bundle: Bundle) -> None:
    """An answer is the caller's own: writing to it moves no other answer."""
    with opened(bundle, CACHE) as engine:
        before = [engine.embed(TEXTS[:1], form=Form(normalize=False)).vectors for _ in range(2)]
        bits = before[0].tobytes()
        for vectors in before:
            vectors[:] = 0
        assert engine.embed(TEXTS[:1], form=Form(normalize=False)).vectors.tobytes() == bits


def test_a_closed_engine_answers_nothing_that_it_keeps(bundle: Bundle) -> None:
    """After close a call fails, whether its vectors are kept or not."""
    with opened(bundle, CACHE) as engine:
        engine.embed(TEXTS)
    with pytest.raises(UnavailableError):
        engine.embed(TEXTS)


def queue_without_end(engine: Embedder, text: str) -> None:
    while True:
        engine.submit([text], bulk=True)


def test_a_full_queue_refuses_no_text_that_is_kept(bundle: Bundle) -> None:
    """It needs no run, so it is answered, as a query or by Embed; what is not kept, or is bulk, is refused."""
    with opened(bundle, Reuse(share_in_flight=False, cache_bytes=1 << 20)) as engine:
        kept = engine.embed(["cat"]).vectors
        go_on = threading.Event()
        held = engine.submit_query("dog", lambda _: go_on.wait(PATIENCE_S))  # in the only worker
        for text in ("red bird", "cat"):  # the shorter one for what room is left
            with pytest.raises(OverloadedError):
                queue_without_end(engine, text)
        assert engine.submit(["cat"]).result(0).vectors.tobytes() == kept.tobytes()
        assert engine.submit_query("cat", lambda made: made.vectors.tobytes()).result(0) == kept.tobytes()
        with pytest.raises(OverloadedError):
            engine.submit(["a dog"])
        go_on.set()
        assert held.result(PATIENCE_S)


def test_a_full_queue_refuses_long_calls_before_it_looks_them_up(bundle: Bundle) -> None:
    """They need room for all their tokens, kept or not: an overloaded server has no time to tokenize them."""
    with opened(bundle, CACHE) as engine:
        engine.embed(["cat"])
        with pytest.raises(OverloadedError):
            engine.embed(["cat"] * 2_000)


def test_a_full_queue_refuses_what_is_never_kept_before_it_cuts_it(bundle: Bundle) -> None:
    """Bulk texts, and those whose tokens are asked for, are not looked up: few as they are, none is tokenized in vain.

    What cutting a text that is too long would say, another call is told: its vector might have been kept.
    """
    with opened(bundle, Reuse(share_in_flight=False, cache_bytes=1 << 20)) as engine:
        go_on = threading.Event()
        held = engine.submit_query("dog", lambda _: go_on.wait(PATIENCE_S))  # in the only worker
        with pytest.raises(OverloadedError):
            queue_without_end(engine, "cat")
        too_long, refuse = ["cat " * (bundle.manifest.max_tokens - 1)] * 2, Truncation.REFUSE
        with pytest.raises(OverloadedError):
            engine.submit(too_long, truncation=refuse, token_claim=TokenRoom(1 << 20).claim())
        with pytest.raises(OverloadedError):
            engine.submit(too_long, truncation=refuse, bulk=True)
        with pytest.raises(TextTooLongError):
            engine.submit(too_long, truncation=refuse)
        go_on.set()
        assert held.result(PATIENCE_S)


class Blocked:
    """An intake with one worker, whose model runs only when the test lets it; a text's vector is its ids."""

    def __init__(self) -> None:
        self.started: list[list[TokenIds]] = []
        self._begun, self._go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.workplace = Workplace(workers=1, max_run_tokens=64, max_queued_tokens=1_000, reuse=CACHE)
        self.intake = Intake(self._embed, self.workplace)
        self.calls: list[Callable[[], None]] = []  # of requests that need no run

    def _embed(self, texts: Sequence[TokenIds]) -> tuple[F32, F32]:
        self.started.append(list(texts))
        self._begun.release()
        assert self._go_on.acquire(timeout=PATIENCE_S)
        return np.array(texts, np.float32), np.array(texts, np.float32)[:, :, np.newaxis]

    def submit(self, *texts: list[int], bulk: bool = False) -> Future[F32]:
        return self.intake.submit(
            texts, answer=lambda vectors: vectors, bulk=bulk, deadline=None, start_known=self.calls.append
        )

    def run(self) -> list[TokenIds]:
        """Wait until a run has begun and let it end."""
        assert self._begun.acquire(timeout=PATIENCE_S)
        self._go_on.release()
        return self.started[-1]


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    blocked = Blocked()
    yield blocked
    blocked.workplace.close()


def test_who_is_served_whole_does_not_wait(blocked: Blocked) -> None:
    """While the only worker is busy, a request whose vectors are all kept is answered, in the thread that it names."""
    first = blocked.submit([1, 2], [3, 4])
    blocked.run()
    first.result(PATIENCE_S)
    blocked.submit([5, 6, 7])
    known, left = blocked.submit([3, 4], [1, 2], [3, 4]), blocked.submit([1, 2])
    assert not known.done()
    assert left.cancel()
    for call in blocked.calls:
        call()
    np.testing.assert_array_equal(known.result(0), [[3, 4], [1, 2], [3, 4]])
    assert blocked.run() == [[5, 6, 7]]


def test_only_what_is_not_kept_is_embedded(blocked: Blocked) -> None:
    """Of a request that is kept in part the rest is embedded, and all of it is answered in its order."""
    blocked.submit([1, 2])
    blocked.run()
    part = blocked.submit([3, 4], [1, 2], [5, 6])
    assert blocked.run() == [[3, 4], [5, 6]]
    np.testing.assert_array_equal(part.result(PATIENCE_S), [[3, 4], [1, 2], [5, 6]])
    assert not blocked.calls


def test_bulk_requests_pass_the_cache_by(blocked: Blocked) -> None:
    """Bulk texts are not kept, so that documents push out no query, and are not looked up."""
    for bulk in (True, True, False):
        pending = blocked.submit([1, 2], bulk=bulk)
        assert blocked.run() == [[1, 2]]
        pending.result(PATIENCE_S)
    assert blocked.workplace.cache_bytes > 0
    pending = blocked.submit([1, 2], bulk=True)
    blocked.run()
    pending.result(PATIENCE_S)
    assert not blocked.calls


def test_an_answer_that_fails_reaches_its_caller(blocked: Blocked) -> None:
    """What making an answer of kept vectors raises, the future fails with."""

    def fail(vectors: F32) -> None:
        raise ValueError("no")

    pending = blocked.submit([1, 2])
    blocked.run()
    pending.result(PATIENCE_S)
    failing = blocked.intake.submit([[1, 2]], answer=fail, bulk=False, deadline=None, start_known=lambda call: call())
    with pytest.raises(ValueError, match="no"):
        failing.result(0)
