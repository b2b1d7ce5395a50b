"""Worker threads, futures, deadlines and the bound, with a fake model and a clock that the test moves."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nearshore.embedding.errors import ModelRunError
from nearshore.embedding.request import TokenIds
from nearshore.embedding.scheduler import Scheduler
from nearshore.errors import DeadlineError, OverloadedError, UnavailableError
from nearshore.records import F32
from tests.waiting import eventually

MAX_RUN_TOKENS = 32
MAX_QUEUED_TOKENS = 120
PATIENCE_S = 20  # until a hanging test is given up; no test waits for it


class Model:
    """A model that runs only when the test lets it; a text's vector is its first two token ids, a token's is its id.

    embed_second is another model: its vectors point the other way.
    """

    def __init__(self) -> None:
        self.started: SimpleQueue[tuple[bool, list[TokenIds]]] = (
            SimpleQueue()
        )  # whether the second model runs, and what
        self._orders: SimpleQueue[Exception | None] = SimpleQueue()

    def embed(self, texts: Sequence[TokenIds]) -> tuple[F32, F32]:
        return self._embed(texts, second=False)

    def embed_second(self, texts: Sequence[TokenIds]) -> tuple[F32, F32]:
        vectors, tokens = self._embed(texts, second=True)
        return -vectors, -tokens

    def _embed(self, texts: Sequence[TokenIds], *, second: bool) -> tuple[F32, F32]:
        self.started.put((second, list(texts)))
        order = self._orders.get(timeout=PATIENCE_S)
        if order is not None:
            raise order
        return np.array([ids[:2] for ids in texts], np.float32), np.array(texts, np.float32)[:, :, np.newaxis]

    def wait_for_run(self) -> list[TokenIds]:
        """Block until a run has begun."""
        return self.wait_for_either()[1]

    def wait_for_either(self) -> tuple[bool, list[TokenIds]]:
        """Block until a run has begun; the first: whether it is the second model's."""
        return self.started.get(timeout=PATIENCE_S)

    def proceed(self, error: Exception | None = None) -> None:
        """Let one run end, well or with an error."""
        self._orders.put(error)


def scheduler_of(model: Model, clock: list[float] | None = None, *, workers: int = 1) -> Scheduler:
    """A scheduler over the fake model; clock[0] is the time."""
    now = [0.0] if clock is None else clock
    return Scheduler(
        workers=workers,
        max_run_tokens=MAX_RUN_TOKENS,
        max_queued_tokens=MAX_QUEUED_TOKENS,
        clock=lambda: now[0],
    )


@dataclass(eq=False)
class Call:
    """What the test knows of one request."""

    second: bool  # whether it is for the second model
    texts: list[list[int]]
    deadline: float | None
    future: Future[F32]
    waiting: set[int]  # positions that have not begun
    ran: set[int] = field(default_factory=set)  # positions that were embedded
    failed: type[Exception] | None = None
    cancelled: bool = False

    @property
    def tokens_waiting(self) -> int:
        return sum(len(ids) for ids in {tuple(self.texts[position]) for position in self.waiting})


class SchedulerMachine(RuleBasedStateMachine):
    """Callers come, leave and run out of time while one worker embeds, run by run, texts that are often identical.

    They are for two models.
    """

    share = True

    def __init__(self) -> None:
        super().__init__()
        self.clock = [0.0]
        self.model = Model()
        self.scheduler = scheduler_of(self.model, self.clock)
        self.calls: list[Call] = []
        self.running: list[tuple[Call, int]] = []

    def queue(self, texts: list[list[int]], bulk: bool, deadline: float | None, second: bool) -> Future[F32]:
        return self.scheduler.submit(
            texts,
            embed=self.model.embed_second if second else self.model.embed,
            answer=lambda vectors: vectors,
            bulk=bulk,
            deadline=deadline,
            share=self.share,
        )

    @rule(
        drawn=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([2, 3, 9, 40])), min_size=1, max_size=6),
        bulk=st.booleans(),
        wait_s=st.none() | st.integers(0, 4),
        second=st.booleans(),
    )
    def submit(self, drawn: list[tuple[int, int]], bulk: bool, wait_s: int | None, second: bool) -> None:
        self.expire()
        number = len(self.calls)
        texts = [
            [value, length] * length if self.share else [number, position] * length
            for position, (value, length) in enumerate(drawn)
        ]
        deadline = None if wait_s is None else self.clock[0] + wait_s
        tokens = sum(map(len, texts))
        if sum(call.tokens_waiting for call in self.calls) + tokens > MAX_QUEUED_TOKENS:
            with pytest.raises(OverloadedError):
                self.queue(texts, bulk, deadline, second)
            return
        future = self.queue(texts, bulk, deadline, second)
        in_run = [each.texts[position] for each, position in self.running if each.second == second]
        joined = {position for position, ids in enumerate(texts) if ids in in_run}
        call = Call(second, texts, deadline, future, set(range(len(texts))) - joined)
        self.running += [(call, position) for position in joined]
        self.calls.append(call)
        if not self.running:
            self.expire()
            self.begin()

    @precondition(lambda self: self.running)
    @rule(fails=st.booleans())
    def end_run(self, fails: bool) -> None:
        done, self.running = self.running, []
        for call, position in done:
            if fails and not call.future.done():
                call.failed = ModelRunError
                call.waiting.clear()
            elif not fails:
                call.ran.add(position)
        self.expire()
        self.model.proceed(RuntimeError("out of order") if fails else None)
        self.begin()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        if len(call.ran) == len(call.texts) or call.failed:
            return  # being answered at this moment
        call.cancelled = call.future.cancel()
        assert call.cancelled
        call.waiting.clear()

    @rule(seconds=st.integers(1, 3))
    def let_time_pass(self, seconds: int) -> None:
        self.clock[0] += seconds

    def expire(self) -> None:
        """The scheduler looks at the clock whenever somebody comes and whenever a run is made."""
        for call in self.calls:
            if call.waiting and call.deadline is not None and call.deadline <= self.clock[0]:
                call.failed = DeadlineError
                call.waiting.clear()

    def begin(self) -> None:
        """If anything waits, a run begins at once, of one length and within its size, of nobody who has left."""
        for call in self.calls:
            if call.failed or len(call.ran) == len(call.texts):
                wait([call.future], PATIENCE_S)  # the worker has dropped what the model above has dropped
        if not any(call.waiting for call in self.calls):
            self.let_worker_idle()
            return
        second, run = self.model.wait_for_either()
        assert len({len(ids) for ids in run}) == 1
        assert len(run) == 1 or sum(map(len, run)) <= MAX_RUN_TOKENS
        assert len({tuple(ids) for ids in run}) == len(run)
        self.running = [
            (call, position)
            for call in self.calls
            for position in call.waiting
            if call.second == second and call.texts[position] in run
        ]
        begun = [call.texts[position] for call, position in self.running]
        assert all(ids in begun for ids in run)  # not begun twice, nor after its last caller was gone
        for call, position in self.running:
            call.waiting.remove(position)

    def let_worker_idle(self) -> None:
        """Nobody joins a run that has ended: the worker has embedded another text since."""
        other = submit(self.model, self.scheduler, [8, 8])
        self.model.wait_for_run()
        self.model.proceed()
        other.result(PATIENCE_S)

    @invariant()
    def bound_holds(self) -> None:
        assert self.scheduler.queued_tokens <= MAX_QUEUED_TOKENS

    def teardown(self) -> None:
        """Everyone is answered exactly once: with the right vectors, or with the reason why not."""
        waiting = [call for call in self.calls if call.waiting]
        for call in waiting:
            call.failed = UnavailableError
        closing = threading.Thread(target=self.scheduler.close)
        closing.start()
        wait([call.future for call in waiting], PATIENCE_S)  # before the run ends, or the next would begin
        if self.running:
            self.model.proceed()
            for call, position in self.running:
                call.ran.add(position)
        closing.join(PATIENCE_S)
        for call in self.calls:
            assert call.future.done()
            if call.cancelled:
                assert call.future.cancelled()
            elif call.failed:
                assert isinstance(call.future.exception(), call.failed)
            else:
                expected = np.array([ids[:2] for ids in call.texts], np.float32)
                np.testing.assert_array_equal(call.future.result(), -expected if call.second else expected)


class AloneMachine(SchedulerMachine):
    """The same where nothing is shared."""

    share = False


TestScheduler = SchedulerMachine.TestCase
TestSchedulerWithoutSharing = AloneMachine.TestCase
TestScheduler.settings = TestSchedulerWithoutSharing.settings = settings(max_examples=150, stateful_step_count=30)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def scheduler(model: Model) -> Iterator[Scheduler]:
    scheduler = scheduler_of(model)
    yield scheduler
    scheduler.close()


def submit(
    model: Model, scheduler: Scheduler, *texts: list[int], bulk: bool = False, deadline: float | None = None
) -> Future[F32]:
    """Queue texts; the result is their vectors."""
    return scheduler.submit(texts, embed=model.embed, answer=lambda vectors: vectors, bulk=bulk, deadline=deadline)


def test_a_failing_run_fails_only_the_requests_in_it(model: Model, scheduler: Scheduler) -> None:
    """The model's error reaches those whose texts were in that run; the worker lives on and serves the others."""
    broken = submit(model, scheduler, [1, 1], [1, 1, 1])
    other = submit(model, scheduler, [2, 2, 2, 2])
    model.wait_for_run()
    model.proceed(MemoryError())
    assert model.wait_for_run() == [[2, 2, 2, 2]]
    model.proceed()
    with pytest.raises(ModelRunError, match="MemoryError"):
        broken.result(PATIENCE_S)
    np.testing.assert_array_equal(other.result(PATIENCE_S), [[2, 2]])


def test_a_cancelled_caller_frees_its_place_at_once(model: Model, scheduler: Scheduler) -> None:
    """What has not begun of a cancelled request never runs, no longer counts, and waiters on its future are told."""
    submit(model, scheduler, [1, 1])
    model.wait_for_run()
    leaver = submit(model, scheduler, [2] * 50, [3] * 50)
    stayer = submit(model, scheduler, [4] * 20)
    assert leaver.cancel()
    assert scheduler.queued_tokens == 20
    assert wait([leaver], PATIENCE_S).done == {leaver}
    model.proceed()
    assert model.wait_for_run() == [[4] * 20]
    model.proceed()
    stayer.result(PATIENCE_S)
    with pytest.raises(CancelledError):
        leaver.result()


def test_identical_texts_are_embedded_once(model: Model, scheduler: Scheduler) -> None:
    """Whoever waits for a text, joins its run or repeats it gets the vector of one computation, in its own order."""
    first = submit(model, scheduler, [1, 2])
    model.wait_for_run()
    joining = submit(model, scheduler, [3, 4], [1, 2], [3, 4])
    waiting = submit(model, scheduler, [3, 4], bulk=True)
    assert scheduler.queued_tokens == 4  # each of the two that wait may leave
    model.proceed()
    assert model.wait_for_run() == [[3, 4]]
    model.proceed()
    np.testing.assert_array_equal(first.result(PATIENCE_S), [[1, 2]])
    np.testing.assert_array_equal(joining.result(PATIENCE_S), [[3, 4], [1, 2], [3, 4]])
    np.testing.assert_array_equal(waiting.result(PATIENCE_S), [[3, 4]])


def test_who_leaves_takes_nothing_from_who_shares(model: Model) -> None:
    """Of those who wait for a text, or are in its run, some leave or are late; the others get its vector."""
    clock = [0.0]
    scheduler = scheduler_of(model, clock)
    running = submit(model, scheduler, [1, 2])
    model.wait_for_run()
    joined = submit(model, scheduler, [1, 2], deadline=0.5)
    leaver, late, stayer = (submit(model, scheduler, [3, 4], deadline=deadline) for deadline in (None, 1.0, 2.0))
    assert running.cancel()
    assert leaver.cancel()
    clock[0] = 1.5
    model.proceed()
    assert model.wait_for_run() == [[3, 4]]
    model.proceed()
    np.testing.assert_array_equal(joined.result(PATIENCE_S), [[1, 2]])
    np.testing.assert_array_equal(stayer.result(PATIENCE_S), [[3, 4]])
    with pytest.raises(DeadlineError):
        late.result(PATIENCE_S)
    scheduler.close()


def test_a_failing_run_is_not_remembered(model: Model, scheduler: Scheduler) -> None:
    """All who share a text fail with its run; whoever asks for it afterwards has it embedded anew."""
    sharing = [submit(model, scheduler, [1, 2])]
    model.wait_for_run()
    sharing.append(submit(model, scheduler, [1, 2]))
    model.proceed(MemoryError())
    for each in sharing:
        with pytest.raises(ModelRunError, match="MemoryError"):
            each.result(PATIENCE_S)
    again = submit(model, scheduler, [1, 2])
    model.wait_for_run()
    model.proceed()
    np.testing.assert_array_equal(again.result(PATIENCE_S), [[1, 2]])


def test_answers_of_one_run_are_made_at_the_same_time() -> None:
    """Those who share a text are answered by all workers that are free, since an answer may have to search."""
    begun, go_on, meeting = threading.Event(), threading.Event(), threading.Barrier(2)

    def embed(texts: Sequence[TokenIds]) -> tuple[F32, F32]:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return np.zeros((len(texts), 2), np.float32), np.zeros((len(texts), 2, 2), np.float32)

    scheduler = Scheduler(workers=2, max_run_tokens=8, max_queued_tokens=100)
    first = scheduler.submit([[1, 2]], embed=embed, answer=lambda vectors: meeting.wait(PATIENCE_S))
    assert begun.wait(PATIENCE_S)
    second = scheduler.submit([[1, 2]], embed=embed, answer=lambda vectors: meeting.wait(PATIENCE_S))
    go_on.set()
    assert {first.result(PATIENCE_S), second.result(PATIENCE_S)} == {0, 1}
    scheduler.close()


def test_closing_answers_those_who_share_a_run(model: Model) -> None:
    """Closing lets the run in progress end for all who are in it, whenever they came."""
    scheduler = scheduler_of(model)
    first = submit(model, scheduler, [1, 2])
    model.wait_for_run()
    joined, waiting = submit(model, scheduler, [1, 2]), submit(model, scheduler, [3, 4])
    told = threading.Event()
    waiting.add_done_callback(lambda future: told.set())
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    assert told.wait(PATIENCE_S)
    model.proceed()
    closing.join(PATIENCE_S)
    for each in (first, joined):
        np.testing.assert_array_equal(each.result(PATIENCE_S), [[1, 2]])


def test_close_with_work_in_flight(model: Model) -> None:
    """Closing lets the run in progress end and answers it; what waited, and what comes later, is told UNAVAILABLE."""
    scheduler = scheduler_of(model)
    running = submit(model, scheduler, [1, 1])
    model.wait_for_run()
    waiting = submit(model, scheduler, [2, 2, 2])
    told = threading.Event()
    waiting.add_done_callback(lambda future: told.set())
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    assert told.wait(PATIENCE_S)
    assert not running.done()
    model.proceed()
    closing.join(PATIENCE_S)
    np.testing.assert_array_equal(running.result(PATIENCE_S), [[1, 1]])
    with pytest.raises(UnavailableError):
        waiting.result(PATIENCE_S)
    with pytest.raises(UnavailableError):
        submit(model, scheduler, [1, 1])
    scheduler.close()  # closing twice is fine


def test_a_full_queue_refuses_at_once(model: Model, scheduler: Scheduler) -> None:
    """Beyond the bound submit raises OVERLOADED, saying how full it is; the same call is taken once there is room."""
    submit(model, scheduler, [1, 1])
    model.wait_for_run()
    full = submit(model, scheduler, [2] * MAX_QUEUED_TOKENS)
    with pytest.raises(OverloadedError, match="120 of at most 120 tokens are waiting") as caught:
        submit(model, scheduler, [3, 3])
    assert caught.value.metadata["queued_tokens"] == "120"
    full.cancel()
    submit(model, scheduler, [3, 3])
    for _ in range(2):
        model.proceed()


def test_a_call_larger_than_the_queue_names_the_setting(model: Model, scheduler: Scheduler) -> None:
    """A call that could never be taken is refused even by an idle server, with the setting to raise."""
    with pytest.raises(OverloadedError, match=r"has 121 tokens.*Send fewer.*embedding\.max_queued_tokens"):
        submit(model, scheduler, [1] * (MAX_QUEUED_TOKENS + 1))


def test_workers_run_at_the_same_time() -> None:
    """Two workers are inside the model at once: neither waits for the other's run."""
    meeting = threading.Barrier(2)

    def embed(texts: Sequence[TokenIds]) -> tuple[F32, F32]:
        meeting.wait(PATIENCE_S)
        return np.zeros((len(texts), 2), np.float32), np.zeros((len(texts), 8, 2), np.float32)

    scheduler = Scheduler(workers=2, max_run_tokens=8, max_queued_tokens=100)
    scheduler.submit([[1] * 8, [2] * 8], embed=embed, answer=lambda vectors: vectors).result(PATIENCE_S)
    scheduler.close()


def test_a_callback_may_submit(model: Model, scheduler: Scheduler) -> None:
    """Answers are given without holding the scheduler's lock, so that whoever gets one can ask again."""
    again: SimpleQueue[Future[F32]] = SimpleQueue()
    submit(model, scheduler, [1, 1]).add_done_callback(lambda future: again.put(submit(model, scheduler, [2, 2])))
    for _ in range(2):
        model.wait_for_run()
        model.proceed()
    np.testing.assert_array_equal(again.get(timeout=PATIENCE_S).result(PATIENCE_S), [[2, 2]])


def test_only_who_asks_is_given_tokens(model: Model, scheduler: Scheduler) -> None:
    """In one run of two callers, one gets its tokens' vectors by position, before its answer; they hold no others."""
    submit(model, scheduler, [9])
    model.wait_for_run()
    kept: dict[int, F32] = {}
    asking = scheduler.submit(
        [[1, 2], [3, 4]],
        embed=model.embed,
        answer=lambda _: [kept[0].ravel().tolist(), kept[1].ravel().tolist()],
        keep_tokens=kept.__setitem__,
    )
    other = submit(model, scheduler, [5, 6])
    for _ in range(2):
        model.proceed()
    assert asking.result(PATIENCE_S) == [[1, 2], [3, 4]]
    np.testing.assert_array_equal(other.result(PATIENCE_S), [[5, 6]])
    assert all(each.base is None for each in kept.values())


def test_an_error_in_the_answer_reaches_the_caller(model: Model, scheduler: Scheduler) -> None:
    """A result that cannot be made fails its own future and leaves the worker alive."""

    def answer(vectors: F32) -> None:
        raise ValueError("no")

    future = scheduler.submit([[1, 1]], embed=model.embed, answer=answer)
    model.wait_for_run()
    model.proceed()
    with pytest.raises(ValueError, match="no"):
        future.result(PATIENCE_S)
    after = submit(model, scheduler, [2, 2])
    model.wait_for_run()
    model.proceed()
    after.result(PATIENCE_S)


class Kept:
    """Takes vectors of tokens."""

    def __init__(self) -> None:
        self.tokens: dict[int, F32] = {}

    def keep(self, position: int, tokens: F32) -> None:
        self.tokens[position] = tokens


@pytest.mark.parametrize("leaves", [False, True])
def test_what_was_made_for_a_request_goes_with_it(model: Model, scheduler: Scheduler, leaves: bool) -> None:
    """Vectors of tokens are few objects, and large: they do not wait for the collector of cycles."""
    gc.collect()
    gc.disable()
    try:
        kept = Kept()
        future = scheduler.submit([[1, 2]], embed=model.embed, answer=lambda vectors: vectors, keep_tokens=kept.keep)
        model.wait_for_run()
        if leaves:
            future.cancel()
        model.proceed()
        if not leaves:
            future.result(PATIENCE_S)
        there = weakref.ref(kept)
        del kept, future
        eventually(lambda: there() is None)
    finally:
        gc.enable()


def test_no_room_for_vectors_of_tokens_fails_their_request(model: Model, scheduler: Scheduler) -> None:
    """It is told, and the worker goes on."""

    def keep(position: int, tokens: F32) -> None:
        raise MemoryError

    future = scheduler.submit([[1, 2]], embed=model.embed, answer=lambda vectors: vectors, keep_tokens=keep)
    model.wait_for_run()
    model.proceed()
    with pytest.raises(ModelRunError):
        future.result(PATIENCE_S)
    other = submit(model, scheduler, [3, 4])
    model.wait_for_run()
    model.proceed()
    assert other.result(PATIENCE_S).tolist() == [[3, 4]]


def test_models_share_the_workers_and_no_run(model: Model, scheduler: Scheduler) -> None:
    """Identical texts that wait for two models are embedded each by its own, in the order in which they came."""
    other = Model()
    busy = submit(model, scheduler, [1, 1])
    model.wait_for_run()
    one, another = submit(model, scheduler, [2, 2]), submit(other, scheduler, [2, 2])
    model.proceed()
    assert model.wait_for_run() == [[2, 2]]
    assert other.started.empty()  # the only worker is at the first model's run
    model.proceed()
    assert other.wait_for_run() == [[2, 2]]
    other.proceed()
    wait([busy, one, another], PATIENCE_S)
    assert [each.done() for each in (busy, one, another)] == [True] * 3


def test_only_the_model_that_is_asked_gives_tokens(model: Model, scheduler: Scheduler) -> None:
    """Of two models that are asked for the same text, each gives the vectors of its tokens to its own caller."""
    kept: list[dict[int, F32]] = [{}, {}]
    first, second = (
        scheduler.submit([[1, 2]], embed=embed, answer=len, keep_tokens=tokens.__setitem__)
        for embed, tokens in zip((model.embed, model.embed_second), kept, strict=True)
    )
    for _ in range(2):
        model.wait_for_run()
        model.proceed()
    wait([first, second], PATIENCE_S)
    assert [tokens[0].ravel().tolist() for tokens in kept] == [[1, 2], [-1, -2]]
