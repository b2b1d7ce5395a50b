"""Texts that wait to be embedded, in the order in which they deserve it. Not thread-safe: the scheduler locks.

Order is that of fair queueing (Demers, Keshav and Shenker, 1989). Virtual time advances as if the requests that wait
shared the machine, each getting the same number of tokens a second. A text is due at the virtual time at which its
request came, plus the tokens of the request that precede it; the text that is due first heads the next run. So a
query does not wait behind the thousand texts of another caller, and two large requests proceed side by side.

Bulk requests start BULK_LAG_TOKENS later. Queries overtake them, but only for that long: everything is due at some
time, virtual time never stops while there is work, and what comes later is due later. No clock is involved.

A run is filled with texts that have exactly as many tokens as its head, whoever sent them, so nothing is padded. They
are for the head's model and of its class: a query should not wait for bulk work in its own run. Every operation is
O(log n) a text.

A query that comes to busy workers waits for a run to end. So while queries come, runs of bulk work have half the size,
which costs it a tenth of its speed. A text that is longer than that is a run all the same. While bulk requests have all
workers but one at such texts, others of theirs come last, whenever they are due: the worker that is left takes them
only when nothing else waits. They are not starved, for the other workers go on with them.

Each request has its own ticket for a text, but a run that takes one takes all tickets of that text, of either class,
and those of requests that come before the run has ended: it is embedded once for all (docs/decisions/0009).
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count
from typing import NamedTuple

from sortedcontainers import SortedList

from nearshore.embedding.request import Embed, Request, TokenIds

BULK_LAG_TOKENS = 16_384  # a second or two of work
QUERIES_COME_TOKENS = 16_384  # that are embedded after a query until bulk work has whole runs again


class Ticket(NamedTuple):
    """One text of one request; tickets sort by when they are due."""

    due_tokens: float  # virtual time
    number: int  # unique, so that sorting never looks further
    request: Request
    position: int  # in request.texts

    @property
    def ids(self) -> TokenIds:
        """The text's token ids."""
        return self.request.texts[self.position]

    @property
    def key(self) -> Hashable:
        """The same for all tickets that are embedded together."""
        return self.request.keys[self.position]

    @property
    def lane(self) -> tuple[Embed, int, bool]:
        """What it has in common with the texts that may fill its run: model, token count, bulk."""
        return self.request.embed, len(self.ids), self.request.bulk


Sharers = list[Ticket]
"""The tickets of one text, at least one, each of another request."""


class Backlog:
    """All texts that wait, and who else may join those that run."""

    def __init__(self, *, workers: int, max_run_tokens: int) -> None:
        """workers: who take runs; max_run_tokens: size of a run; one text that is longer still makes a run."""
        self._max_run_tokens = max_run_tokens
        self._short_run_tokens = max(1, max_run_tokens // 2)
        self._tokens_to_whole_runs = 0  # to be embedded until bulk work has whole runs again
        self._most_long_runs = max(1, workers - 1)  # while other texts wait
        self._now_tokens = 0.0  # virtual time
        self._numbers = count()
        self._order: SortedList = SortedList()  # of every Ticket but those in:
        self._long: SortedList = SortedList()  # Tickets of bulk texts that are longer than a short run
        self._lanes: dict[tuple[Embed, int, bool], SortedList] = {}  # lane: its Tickets
        self._deadlines: SortedList = SortedList()  # of (deadline, id, Request)
        self._requests: dict[Request, set[Ticket]] = {}  # what waits of each; never an empty set
        self._sharers: dict[Hashable, set[Ticket]] = {}  # who waits for each text; never an empty set
        self._long_runs: set[Hashable] = set()  # keys of those Tickets that run
        self._running: dict[Hashable, Sharers] = {}  # texts in a run; none of them waits too
        self.tokens = 0
        """Tokens that wait."""

    def __len__(self) -> int:
        """Texts that wait."""
        return len(self._order) + len(self._long)

    def add(self, request: Request) -> int:
        """Queue the texts of a new request; returns how many: not those that are running, whose runs it joins."""
        due_tokens = self._now_tokens + (BULK_LAG_TOKENS if request.bulk else 0)
        if not request.bulk:
            self._tokens_to_whole_runs = QUERIES_COME_TOKENS
        tickets: set[Ticket] = set()
        for position, (ids, key) in enumerate(zip(request.texts, request.keys, strict=True)):
            ticket = Ticket(due_tokens, next(self._numbers), request, position)
            running = self._running.get(key)
            if running is not None:
                running.append(ticket)
                continue
            tickets.add(ticket)
            self._order_of(ticket).add(ticket)
            self._lanes.setdefault(ticket.lane, SortedList()).add(ticket)
            self._sharers.setdefault(key, set()).add(ticket)
            self.tokens += len(ids)
            due_tokens += len(ids)
        if tickets:
            self._requests[request] = tickets
            if request.deadline is not None:
                self._deadlines.add((request.deadline, id(request), request))
        return len(tickets)

    def take(self) -> list[Sharers]:
        """Remove and return the next run, texts of one model and token count, to be ended; empty when nothing waits.

        The sharers of a text become more while it runs.
        """
        if not self:
            return []
        head = self._head()
        length, requests = len(head.ids), len(self._requests)
        lane = self._lanes[head.lane]
        short = head.request.bulk and self._tokens_to_whole_runs > 0
        most_texts = max(1, (self._short_run_tokens if short else self._max_run_tokens) // length)
        run: list[Sharers] = []
        while lane and len(run) < most_texts:
            key = lane[0].key
            sharers = self._running[key] = sorted(self._sharers[key])
            for ticket in sharers:
                self._remove(ticket)
            run.append(sharers)
        if self._is_long(head):
            self._long_runs.add(head.key)
        self._tokens_to_whole_runs -= length * len(run)
        # What was computed, not what was answered: what shares a text takes no time from others.
        self._now_tokens += length * len(run) / requests
        return run

    def end(self, run: list[Sharers]) -> None:
        """The run is over, well or not: nobody can join it any more."""
        for sharers in run:
            self._long_runs.discard(sharers[0].key)
            del self._running[sharers[0].key]

    def discard(self, request: Request) -> None:
        """Drop what still waits of a request, if anything does."""
        for ticket in list(self._requests.get(request, ())):
            self._remove(ticket)

    def expire(self, now: float) -> list[Request]:
        """Drop and return the requests whose deadline has come; now: seconds on their clock."""
        expired: list[Request] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            expired.append(self._deadlines[0][2])
            self.discard(expired[-1])
        return expired

    def clear(self) -> list[Request]:
        """Drop everything; returns the requests of which something waited."""
        requests = list(self._requests)
        for request in requests:
            self.discard(request)
        return requests

    def _head(self) -> Ticket:
        """Of the texts that wait, at least one, that which is to be embedded next."""
        heads: list[Ticket] = [order[0] for order in (self._order, self._long) if order]
        return heads[0] if len(self._long_runs) >= self._most_long_runs else min(heads)

    def _order_of(self, ticket: Ticket) -> SortedList:
        return self._long if self._is_long(ticket) else self._order

    def _is_long(self, ticket: Ticket) -> bool:
        return ticket.request.bulk and len(ticket.ids) > self._short_run_tokens

    def _remove(self, ticket: Ticket) -> None:
        request, lane = ticket.request, ticket.lane
        self._order_of(ticket).remove(ticket)
        self._lanes[lane].remove(ticket)
        if not self._lanes[lane]:
            del self._lanes[lane]
        self._sharers[ticket.key].remove(ticket)
        if not self._sharers[ticket.key]:
            del self._sharers[ticket.key]
        self.tokens -= len(ticket.ids)
        self._requests[request].remove(ticket)
        if not self._requests[request]:
            del self._requests[request]
            if request.deadline is not None:
                self._deadlines.remove((request.deadline, id(request), request))
