"""The order in which waiting texts are embedded."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nearshore.embedding.backlog import BULK_LAG_TOKENS, QUERIES_COME_TOKENS, Backlog, Sharers
from nearshore.embedding.request import Embed, Request, TokenIds
from nearshore.records import F32

MAX_RUN_TOKENS = 64
TEXTS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([2, 3, 7, 20, 64, 100])), min_size=1, max_size=12)


def one_model(texts: Sequence[TokenIds]) -> tuple[F32, F32]:
    """Never called: it only tells texts of one model from those of another."""
    raise NotImplementedError


def other_model(texts: Sequence[TokenIds]) -> tuple[F32, F32]:
    """Never called either."""
    raise NotImplementedError


def request_of(
    texts: Sequence[TokenIds],
    *,
    model: Embed = one_model,
    bulk: bool = False,
    deadline: float | None = None,
    share: bool,
) -> Request:
    """A request for these token ids."""
    return Request(texts, embed=model, answer=lambda vectors: vectors, bulk=bulk, deadline=deadline, share=share)


def request(lengths: Sequence[int], *, bulk: bool = False) -> Request:
    """A request whose texts have so many tokens and are like no others."""
    return request_of([[1] * length for length in lengths], bulk=bulk, share=False)


def requests_of(run: Sequence[Sharers]) -> list[Request]:
    """Whose texts a run takes, one entry a ticket."""
    return [ticket.request for sharers in run for ticket in sharers]


def lengths_of(runs: Sequence[list[Sharers]]) -> list[int]:
    """Tokens of the texts of each run."""
    return [len(run[0][0].ids) for run in runs]


def may_be_put_off(asked: Request, position: int) -> bool:
    """Whether it is a bulk request's text that is longer than half a run."""
    return asked.bulk and len(asked.texts[position]) > MAX_RUN_TOKENS // 2


class BacklogMachine(RuleBasedStateMachine):
    """Any mixture of arrivals, runs, departures and deadlines, of texts that are often identical, for two models."""

    share = True

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
        self.now = 0.0
        self.waiting: dict[Request, set[int]] = {}  # positions of the texts that wait
        self.running: list[tuple[list[Sharers], set[tuple[Request, int]]]] = []  # each run, and who is in it

    @rule(
        texts=TEXTS,
        model=st.sampled_from([one_model, other_model]),
        bulk=st.booleans(),
        wait_s=st.none() | st.integers(1, 5),
    )
    def add(self, texts: list[tuple[int, int]], model: Embed, bulk: bool, wait_s: int | None) -> None:
        deadline = None if wait_s is None else self.now + wait_s
        ids = [[value] * length for value, length in texts]
        new = request_of(ids, model=model, bulk=bulk, deadline=deadline, share=self.share)
        assert len(new.texts) == (len(set(texts)) if self.share else len(texts))
        waiting = set(range(len(new.texts)))
        for run, riders in self.running if self.share else []:
            texts_of_run = [sharers[0].ids for sharers in run if sharers[0].request.embed is model]
            joining = {position for position in waiting if new.texts[position] in texts_of_run}
            riders |= {(new, position) for position in joining}
            waiting -= joining
        assert self.backlog.add(new) == len(waiting)
        if waiting:
            self.waiting[new] = waiting

    @rule()
    def take(self) -> None:
        run = self.backlog.take()
        assert bool(run) == bool(self.waiting)
        if not run:
            return
        self.check_run(run)
        tickets = [ticket for sharers in run for ticket in sharers]
        self.running.append((run, {(ticket.request, ticket.position) for ticket in tickets}))
        for ticket in tickets:
            self.waiting[ticket.request].remove(ticket.position)  # KeyError: taken twice, or after it was dropped
            if not self.waiting[ticket.request]:
                del self.waiting[ticket.request]
        if self.share:  # whoever waits for one of its texts rides along
            left_behind = [
                one.texts[position]
                for one, positions in self.waiting.items()
                for position in positions
                if one.embed is run[0][0].request.embed
            ]
            assert not [sharers for sharers in run if sharers[0].ids in left_behind]

    def check_run(self, run: list[Sharers]) -> None:
        length = len(run[0][0].ids)
        assert {len(ticket.ids) for sharers in run for ticket in sharers} == {length}
        assert all(ticket.ids == sharers[0].ids for sharers in run for ticket in sharers)
        assert len({ticket.request.embed for sharers in run for ticket in sharers}) == 1
        bulk = run[0][0].request.bulk
        assert all(
            bulk in {ticket.request.bulk for ticket in sharers} for sharers in run
        )  # what fills it is of its class
        assert len(run) == 1 or length * len(run) <= MAX_RUN_TOKENS
        head = run[0][0]
        taken = {ticket.position for sharers in run for ticket in sharers if ticket.request is head.request}
        # A run begins with the first waiting text of some request, of those that may be put off or of the others.
        before = [position for position in self.waiting[head.request] - taken if position < head.position]
        kind = may_be_put_off(head.request, head.position)
        assert not [position for position in before if may_be_put_off(head.request, position) == kind]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """All who were taken, or joined meanwhile, are in the run, each once; who comes now waits."""
        run, riders = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.backlog.end(run)
        tickets = [(ticket.request, ticket.position) for sharers in run for ticket in sharers]
        assert len(tickets) == len(riders)
        assert set(tickets) == riders

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


class AloneMachine(BacklogMachine):
    """The same where nothing is shared."""

    share = False


TestBacklog = BacklogMachine.TestCase
TestBacklogWithoutSharing = AloneMachine.TestCase
TestBacklog.settings = TestBacklogWithoutSharing.settings = settings(max_examples=150, stateful_step_count=30)


def test_a_query_does_not_wait_behind_a_large_request() -> None:
    """A single text heads the next run even though hundreds of another caller came before it."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    backlog.add(request([32] * 500))
    for _ in range(3):
        backlog.take()
    query = request([5])
    backlog.add(query)
    backlog.take()  # what was due before the query came, at most one run
    assert requests_of(backlog.take()) == [query]


def test_two_large_requests_proceed_side_by_side() -> None:
    """Callers that send much at the same time get equal shares, whoever was first."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    first, second = request([40] * 100), request([50] * 100)
    backlog.add(first)
    backlog.add(second)
    taken = {first: 0, second: 0}
    for _ in range(80):
        for (ticket,) in backlog.take():
            taken[ticket.request] += len(ticket.ids)
        assert abs(taken[first] - taken[second]) <= 2 * MAX_RUN_TOKENS


def test_queries_overtake_bulk_work() -> None:
    """A query that comes later than any amount of bulk work is run next, and no bulk text rides in its run."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    for _ in range(50):
        backlog.add(request([8] * 100, bulk=True))
    for _ in range(200):
        backlog.take()
        query = request([8])
        backlog.add(query)
        assert requests_of(backlog.take()) == [query]


def test_bulk_work_is_not_starved() -> None:
    """However fast queries keep coming, bulk work starts after a bounded number of tokens and keeps its share."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    bulk = request([16] * 400, bulk=True)
    backlog.add(bulk)
    tokens_before, bulk_runs, query_runs = 0, 0, 0
    while bulk_runs < 50:
        while len(backlog) < 400 + 8:  # more queries than a run takes are always there
            backlog.add(request([32]))
        run = backlog.take()
        if run[0][0].request is bulk:
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
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    backlog.add(request([500, 500]))
    assert [len(backlog.take()) for _ in range(3)] == [1, 1, 0]


def test_long_bulk_texts_leave_a_worker_to_shorter_ones() -> None:
    """While one of two workers is at a long bulk text, others come after all that is short, and last alone."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    bulk = request([33, 100, 100, 32, 30], bulk=True)
    backlog.add(bulk)
    runs = [backlog.take(), backlog.take()]
    assert lengths_of(runs) == [33, 32]
    backlog.end(runs.pop())
    runs.append(backlog.take())
    assert lengths_of(runs) == [33, 30]
    backlog.end(runs.pop(0))
    runs.append(backlog.take())
    backlog.end(runs.pop(0))
    runs.append(backlog.take())
    assert lengths_of(runs) == [100, 100]  # nothing else waits, and no worker is idle


def test_bulk_runs_are_short_while_queries_come() -> None:
    """After a query bulk work has half runs, until so much is embedded without another; queries fill whole ones."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    backlog.add(request([8] * 4 * QUERIES_COME_TOKENS, bulk=True))
    assert len(backlog.take()) == 8
    backlog.add(request([8] * 10))
    assert [len(backlog.take()) for _ in range(2)] == [8, 2]
    short_runs = (QUERIES_COME_TOKENS - 80) // 32 + 1
    assert {len(backlog.take()) for _ in range(short_runs)} == {4}
    assert {len(backlog.take()) for _ in range(3)} == {8}
    backlog.add(request([9]))
    assert [len(backlog.take()) for _ in range(2)] == [1, 4]


def test_long_queries_are_not_put_off() -> None:
    """A caller who waits for a long text gets it in its turn, whatever bulk work there is."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    backlog.add(request([100, 100, 40], bulk=True))
    backlog.take()
    query = request([100])
    backlog.add(query)
    assert requests_of(backlog.take()) == [query]


def test_the_only_worker_takes_texts_in_their_order() -> None:
    """With one worker none is left over for what is short, so long bulk texts are not put off for ever."""
    backlog = Backlog(workers=1, max_run_tokens=MAX_RUN_TOKENS)
    backlog.add(request([40, 100, 40], bulk=True))
    lengths = []
    for _ in range(3):
        run = backlog.take()
        lengths += lengths_of([run])
        backlog.end(run)
    assert lengths == [40, 100, 40]


def test_texts_of_several_callers_share_a_run() -> None:
    """Texts of one token count go together up to the size of a run, in the order in which they came."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    queries = [request([20]) for _ in range(5)]
    for query in queries:
        backlog.add(query)
        backlog.add(request([21]))
    assert requests_of(backlog.take()) == queries[:3]


def test_a_query_takes_the_same_text_of_bulk_work_along() -> None:
    """A text runs when the earliest of those who wait for it is due, of whatever class, and then for all of them."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    bulk, query = (request_of([[7] * 20], bulk=bulk, share=True) for bulk in (True, False))
    backlog.add(bulk)
    backlog.add(request([30]))
    backlog.add(query)
    assert [len(requests_of(backlog.take())) for _ in range(3)] == [1, 2, 0]


def test_whoever_stays_keeps_its_place() -> None:
    """When the first to ask for a text leaves, the text is due as early as it is for the next, and runs once."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    leaver, stayer = (request_of([[7] * 20], share=True) for _ in range(2))
    backlog.add(leaver)
    backlog.add(stayer)
    backlog.add(request([30]))
    backlog.discard(leaver)
    assert requests_of(backlog.take()) == [stayer]
    assert len(backlog) == 1


def test_callers_who_share_put_no_bulk_work_ahead_of_queries() -> None:
    """Virtual time advances by what was computed: however many a run answers, the next query overtakes bulk work."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    backlog.add(request([8] * 100, bulk=True))
    for first in (0, 200):
        for _ in range(30):
            backlog.add(request_of([[first + number] * MAX_RUN_TOKENS for number in range(200)], share=True))
        for _ in range(200):
            assert len(requests_of(backlog.take())) == 30
    query = request([8])
    backlog.add(query)
    assert requests_of(backlog.take()) == [query]


def test_sending_a_text_again_moves_no_other_text_forward() -> None:
    """A request is charged for a text that it shares, so that it gains nothing over one that does not."""
    backlog = Backlog(workers=2, max_run_tokens=MAX_RUN_TOKENS)
    plain, shared, other = (
        request([64, 64]),
        request_of([[7] * 64, [8] * 64], share=True),
        request_of([[7] * 64], share=True),
    )
    for each in (plain, shared, other):
        backlog.add(each)
    assert [requests_of(backlog.take()) for _ in range(4)] == [[plain], [shared, other], [plain], [shared]]
