"""Worker threads that embed what waits: one run per worker at a time, made of whatever has arrived by then.

There is no timer and no batching delay: on an idle server a text starts at once, on a busy one runs fill by
themselves. What waits is bounded in tokens; beyond that a request is refused, never delayed. A caller can leave at
any moment, and what still waits of its request is dropped. Identical texts that are under way are embedded once.
Models may share the workers: a run is of one model, and the order is one for all.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog

from nearshore.embedding.backlog import Backlog, Sharers
from nearshore.embedding.errors import ModelRunError
from nearshore.embedding.observer import Observer
from nearshore.embedding.request import Embed, KeepTokens, Request, TokenIds
from nearshore.errors import DeadlineError, OverloadedError, UnavailableError
from nearshore.records import F32

T = TypeVar("T")

MODEL_FAILED = "If it goes on, give the process more memory, or lower embedding.max_run_tokens; see the traceback."

log = structlog.get_logger(__name__)


class Scheduler:
    """A bounded backlog and the threads that work it off. Thread-safe."""

    def __init__(
        self,
        *,
        workers: int,
        max_run_tokens: int,
        max_queued_tokens: int,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
    ) -> None:
        """Start the threads; clock is that of deadlines, in seconds; observer is told of waits and runs."""
        self._max_queued_tokens = max_queued_tokens
        self._clock = clock
        self._observer = observer
        self._closed = False
        self._backlog = Backlog(workers=workers, max_run_tokens=max_run_tokens)
        self._finished: deque[Request] = deque()  # all embedded, to be answered by whichever worker is free
        # Guards these and the vectors that requests hold. No future is touched while it is held, because
        # settling one runs its callbacks, which may call back in here.
        self._changed = threading.Condition(threading.Lock())
        self._threads = [
            threading.Thread(target=self._work, name=f"embed-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait; those that are being embedded do not count."""
        return self._backlog.tokens

    def submit(  # noqa: PLR0913 -- what the caller says of the texts
        self,
        texts: Sequence[TokenIds],
        *,
        embed: Embed,
        answer: Callable[[F32], T],
        keep_tokens: KeepTokens | None = None,
        bulk: bool = False,
        deadline: float | None = None,
        share: bool = True,
    ) -> Future[T]:
        """Queue texts (at least one) for a model and return at once.

        share: have texts that are identical, to each other or to those of other requests, embedded once by their model.
        The result is answer(vectors), vectors (texts, dimensions) in the order of texts; by then keep_tokens has been
        given the vectors of each text's tokens. Callbacks of the future run in a worker and must be short. It
        can fail with DeadlineError, ModelRunError, or UnavailableError (closed). Raises OverloadedError and
        UnavailableError.
        """
        now = self._clock()
        request = Request(
            texts,
            embed=embed,
            answer=answer,
            keep_tokens=keep_tokens,
            bulk=bulk,
            deadline=deadline,
            queued_at=now,
            share=share,
        )
        self._admit(request, now)
        # A future keeps its callbacks. One that held the request, which holds the future, would leave all that was made
        # for it to the cyclic collector, which counts objects: the vectors of tokens are few, and large.
        asked = weakref.ref(request)
        request.future.add_done_callback(lambda future: self._drop(future, asked()) if future.cancelled() else None)
        return request.future

    def check_room(self, tokens: int, deadline: float | None = None) -> None:
        """Raise the error that submit would raise for so many tokens, and DeadlineError where they come too late."""
        if self._closed:
            raise _closed_error()
        if deadline is not None and self._clock() >= deadline:
            raise _late_error()
        overload = self._overload(tokens)
        if overload is not None:
            raise overload

    def close(self) -> None:
        """Fail what waits with UnavailableError, let the runs in progress end, and join the threads."""
        with self._changed:
            self._closed = True
            dropped = self._backlog.clear()
            self._changed.notify_all()
        for request in dropped:
            request.fail(_closed_error())
        for thread in self._threads:
            thread.join()

    def _admit(self, request: Request, now: float) -> None:
        """Queue it. Raises OverloadedError, UnavailableError."""
        with self._changed:
            if self._closed:
                raise _closed_error()
            late = self._backlog.expire(now)
            overload = self._overload(request.tokens)
            if overload is None:
                self._changed.notify(self._backlog.add(request))
        _fail_late(late)
        if overload is not None:
            raise overload

    def _drop(self, future: Future[Any], request: Request | None) -> None:
        future.set_running_or_notify_cancel()  # tells concurrent.futures.wait
        if request is not None:  # else nothing of it waits
            with self._changed:
                self._backlog.discard(request)

    def _work(self) -> None:
        while True:
            with self._changed:
                late, finished, run = self._next()
                while not (late or finished or run or self._closed):
                    self._changed.wait()
                    late, finished, run = self._next()
            _fail_late(late)
            if finished:
                finished.finish()
            elif run:
                self._run(run)
            elif self._closed:
                return

    def _next(self) -> tuple[list[Request], Request | None, list[Sharers]]:
        """Who is late, and what to do: a request to answer, else a run."""
        late = self._backlog.expire(self._clock())
        if self._finished:
            return late, self._finished.popleft(), []
        return late, None, self._backlog.take()

    def _run(self, run: list[Sharers]) -> None:
        if self._observer is not None:
            _tell_waits(self._observer, run, self._clock())
        texts = [sharers[0].ids for sharers in run]
        try:
            vectors, tokens = run[0][0].request.embed(texts)
            for sharers, of_tokens in zip(run, tokens, strict=True):
                sharers[0].request.keep(sharers[0].position, of_tokens)  # who keeps tokens shares no text
        except Exception as error:
            log.exception("The model failed on a run", texts=len(run), tokens_each=len(texts[0]), remedy=MODEL_FAILED)
            self._fail(run, error)
            return
        if self._observer is not None:
            self._observer.embedded(texts=len(run), tokens=len(run) * len(texts[0]))
        with self._changed:
            self._backlog.end(run)
            finished = [
                ticket.request
                for sharers, vector in zip(run, vectors, strict=True)
                for ticket in sharers
                if ticket.request.put(ticket.position, vector)
            ]
            self._finished += finished
            self._changed.notify(max(0, len(finished) - 1))  # this worker takes one

    def _fail(self, run: list[Sharers], cause: Exception) -> None:
        with self._changed:
            self._backlog.end(run)
            requests = {ticket.request for sharers in run for ticket in sharers}
            for request in requests:
                self._backlog.discard(request)
        for request in requests:
            error = ModelRunError(cause)
            error.__cause__ = cause
            request.fail(error)

    def _overload(self, tokens: int) -> OverloadedError | None:
        queued, most = self._backlog.tokens, self._max_queued_tokens
        if queued + tokens <= most:
            return None
        if tokens > most:
            message, remedy = (
                f"The call has {tokens} tokens or more; at most {most} may wait at once.",
                "Send fewer texts a call",
            )
        else:
            message, remedy = f"{queued} of at most {most} tokens are waiting to be embedded.", "Retry with back-off"
        return OverloadedError(
            message,
            f"{remedy}, or raise embedding.max_queued_tokens.",
            tokens=tokens,
            queued_tokens=queued,
            max_queued_tokens=most,
        )


def _closed_error() -> UnavailableError:
    return UnavailableError("The embedding engine has been shut down.", "Retry: another process may be serving by now.")


def _tell_waits(observer: Observer, run: Iterable[Sharers], now: float) -> None:
    for sharers in run:
        for ticket in sharers.copy():
            if ticket.position == 0:  # once a request
                waited_s = max(0.0, now - ticket.request.queued_at)  # it may have joined meanwhile
                observer.waited(waited_s, bulk=ticket.request.bulk)


def _fail_late(requests: Iterable[Request]) -> None:
    for request in requests:
        request.fail(_late_error())


def _late_error() -> DeadlineError:
    return DeadlineError("The deadline passed before the text was embedded.", "Allow more time or send fewer texts.")
