"""The order in which waiting texts are embedded."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nearshore.embedding.backlog import BULK_LAG_TOKENS, Backlog, Ticket
from nearshore.embedding.request import Request

MAX_RUN_TOKENS = 64
LENGTHS = st.lists(st.sampled_from([2, 3, 7, 20, 64, 100]), min_size=1, max_size=12)


def request(lengths: Sequence[int], *, bulk: bool = False, deadline: float | None = None) -> Request:
    """A request whose texts have so many tokens."""
    texts = [[position] * length for position, length in enumerate(lengths)]
    return Request(texts, answer=lambda vectors: vectors, bulk=bulk, deadline=deadline)


class BacklogMachine(RuleBasedStateMachine):
    """Any mixture of arrivals, runs, departures and deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(max_run_tokens=MAX_RUN_TOKENS)
        self.now = 0.0
        self.waiting: dict[Request, set[int]] = {}  # positions of the texts that wait

    @rule(lengths=LENGTHS, bulk=st.booleans(), wait_s=st.none() | st.integers(1, 5))
    def add(self, lengths: list[int], bulk: bool, wait_s: int | None) -> None:
        new = request(lengths, bulk=bulk, deadline=None if wait_s is None else self.now + wait_s)
        self.backlog.add(new)
        self.waiting[new] = set(range(len(lengths)))

    @rule()
    def take(self) -> None:
        run = self.backlog.take()
        assert bool(run) == bool(self.waiting)
        if run:
            self.check_run(run)
        for ticket in run:
            self.waiting[ticket.request].remove(ticket.position)  # KeyError: taken twice, or after it was dropped
            if not self.waiting[ticket.request]:
                del self.waiting[ticket.request]

    def check_run(self, run: list[Ticket]) -> None:
        length = len(run[0].ids)
        assert {len(ticket.ids) for ticket in run} == {length}
        assert len({ticket.request.bulk for ticket in run}) == 1
        assert len(run) == 1 or length * len(run) <= MAX_RUN_TOKENS
        left_behind = [
            position
            for position in self.waiting[run[0].request] - {ticket.position for ticket in run}
            if position < run[0].position
        ]
        assert not left_behind  # a run begins with the first waiting text of some request

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(list(self.waiting)))
        self.backlog.discard(gone)
        self.backlog.discard(gone)  # nothing is left to drop
        del self.waiting[gone]

    @rule(seconds=st.integers(1, 3))
    def expire(self, seconds: int) -> None:
        self.now += seconds
        late = {one for one in self.waiting if one.deadline is not None and one.deadline <= self.now}
        assert set(self.backlog.expire(self.now)) == late
        for one in late:
            del self.waiting[one]

    @invariant()
    def counts_what_waits(self) -> None:
        lengths = [len(one.texts[position]) for one, positions in self.waiting.items() for position in positions]
        assert len(self.backlog) == len(lengths)
        assert self.backlog.tokens == sum(lengths)

    def teardown(self) -> None:
        assert set(self.backlog.clear()) == set(self.waiting)
        assert (len(self.backlog), self.backlog.tokens, self.backlog.take()) == (0, 0, [])


TestBacklog = BacklogMachine.TestCase
TestBacklog.settings = settings(max_examples=150, stateful_step_count=30)


def test_a_query_does_not_wait_behind_a_large_request() -> None:
    """A single text heads the next run even though hundreds of another caller came before it."""
    backlog = Backlog(max_run_tokens=MAX_RUN_TOKENS)
    backlog.add(request([32] * 500))
    for _ in range(3):
        backlog.take()
    query = request([5])
    backlog.add(query)
    backlog.take()  # what was due before the query came, at most one run
    assert [ticket.request for ticket in backlog.take()] == [query]


def test_two_large_requests_proceed_side_by_side() -> None:
    """Callers that send much at the same time get equal shares, whoever was first."""
    backlog = Backlog(max_run_tokens=MAX_RUN_TOKENS)
    first, second = request([40] * 100), request([50] * 100)
    backlog.add(first)
    backlog.add(second)
    taken = {first: 0, second: 0}
    for _ in range(80):
        for ticket in backlog.take():
            taken[ticket.request] += len(ticket.ids)
        assert abs(taken[first] - taken[second]) <= 2 * MAX_RUN_TOKENS


def test_queries_overtake_bulk_work() -> None:
    """A query that comes later than any amount of bulk work is run next, and no bulk text rides in its run."""
    backlog = Backlog(max_run_tokens=MAX_RUN_TOKENS)
    for _ in range(50):
        backlog.add(request([8] * 100, bulk=True))
    for _ in range(200):
        backlog.take()
        query = request([8])
        backlog.add(query)
        assert [ticket.request for ticket in backlog.take()] == [query]


def test_bulk_work_is_not_starved() -> None:
    """However fast queries keep coming, bulk work starts after a bounded number of tokens and keeps its share."""
    backlog = Backlog(max_run_tokens=MAX_RUN_TOKENS)
    bulk = request([16] * 400, bulk=True)
    backlog.add(bulk)
    tokens_before, bulk_runs, query_runs = 0, 0, 0
    while bulk_runs < 50:
        while len(backlog) < 400 + 8:  # more queries than a run takes are always there
            backlog.add(request([32]))
        run = backlog.take()
        if run[0].request is bulk:
            bulk_runs += 1
        elif bulk_runs:
            query_runs += 1
        else:
            tokens_before += 32 * len(run)
        most_active = 400 + 9
        assert tokens_before <= BULK_LAG_TOKENS * most_active
        assert query_runs <= most_active * (bulk_runs + 1)


def test_a_long_text_is_a_run_of_its_own() -> None:
    """A text larger than a run is embedded alone rather than never."""
    backlog = Backlog(max_run_tokens=MAX_RUN_TOKENS)
    backlog.add(request([500, 500]))
    assert [len(backlog.take()) for _ in range(3)] == [1, 1, 0]


def test_texts_of_several_callers_share_a_run() -> None:
    """Texts of one token count go together up to the size of a run, in the order in which they came."""
    backlog = Backlog(max_run_tokens=MAX_RUN_TOKENS)
    queries = [request([20]) for _ in range(5)]
    for query in queries:
        backlog.add(query)
        backlog.add(request([21]))
    assert [ticket.request for ticket in backlog.take()] == queries[:3]
