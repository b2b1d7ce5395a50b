"""Writes batches into a collection, many at a time, so that whoever embeds can group texts of equal length.

Runs of the model hold texts of equal token count (nothing is padded), and those are found only among many: some ten
thousand documents are under way at once. What waits is bounded, and a sink that is full or away is tried again.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nearshore.errors import InvalidArgumentError, NearshoreError
from nearshore.records import Document
from nearshore_indexer.batches import Batch
from nearshore_indexer.entries import Rejection
from nearshore_indexer.patience import Patience

Result = TypeVar("Result")

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 5.0
_DELETE_AT_ONCE = 1_000
_PARENTS_AT_ONCE = 100
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
_FIELD = re.compile(r"documents\[\d+\]\.")  # where the sink saw it; people know the file and the line


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one batch."""

    written: int  # the others were stored already, exactly so
    embedded: int  # of those written; the others' text was unchanged and kept its vector
    truncated: int  # of those embedded, cut at the model's maximum


class Sink(Protocol):
    """Where documents go. Methods are awaited on one event loop."""

    name: str
    """What people know it by: "the server at 127.0.0.1:7700"."""
    retryable: tuple[type[NearshoreError], ...]
    """Errors after which the same write, with the same request id, may succeed later."""

    async def write(self, documents: Sequence[Document], request_id: str) -> Written:
        """Write documents durably, all or none."""

    async def wait_searchable(self) -> None:
        """Return when a search can find everything that was written."""

    async def stale(self, passage_counts: Mapping[str, int]) -> list[str]:
        """The ids parent#n of passages whose number n lies beyond their parent's count.

        Asked once wait_searchable has returned.
        """

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete at most 1,000 documents."""


@dataclass(frozen=True, slots=True)
class Window:
    """How much is under way at once."""

    batches: int = 24
    first_batches: int = 4  # one more with each that is done: batches begun together would all be done only at the end
    tokens: int = 500_000  # estimated
    patience_s: float = 300.0  # how long a sink may refuse everything before its error is final
    away_patience_s: float = 60.0  # how long it may not be there at all


@dataclass(slots=True)
class Tally:
    """What has been done so far."""

    documents: int = 0
    written: int = 0
    embedded: int = 0
    truncated: int = 0
    removed: int = 0
    source_bytes: int = 0  # of the input on disk


class Pipeline:
    """One run over a stream of batches."""

    def __init__(
        self,
        sink: Sink,
        tally: Tally,
        *,
        reject: Callable[[Rejection], None],
        report: Callable[[Tally], None],
        warn: Callable[[str], None],
        window: Window | None = None,
    ) -> None:
        """Tell `reject` what the sink refuses, `report` how far it is, `warn` what it waits for; on the event loop."""
        self._sink = sink
        self._tally = tally
        self._reject = reject
        self._report = report
        self._window = window or Window()
        self._under_way: dict[asyncio.Task[None], int] = {}  # estimated tokens of each
        self._done = 0  # batches
        self._patience = Patience(sink.name, warn, full_s=self._window.patience_s, away_s=self._window.away_patience_s)

    async def run(self, source: Iterator[Batch]) -> None:
        """Write every batch. Raises the first error that cannot be waited out; what was written stays written."""
        try:
            while (batch := await _in_daemon(lambda: next(source, None))) is not None:
                while not self._has_room():
                    await self._wait_for_one()
                task = asyncio.create_task(self._write_batch(batch))
                self._under_way[task] = batch.estimated_tokens
            while self._under_way:
                await self._wait_for_one()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    def _has_room(self) -> bool:
        if not self._under_way:
            return True
        most = min(self._window.batches, self._window.first_batches + self._done)
        return len(self._under_way) < most and sum(self._under_way.values()) < self._window.tokens

    async def _wait_for_one(self) -> None:
        done, _ = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del self._under_way[task]
            self._done += 1
            task.result()

    async def _write_batch(self, batch: Batch) -> None:
        await self._write(batch, range(len(batch.documents)))
        self._tally.source_bytes += batch.source_bytes
        self._report(self._tally)

    async def _write(self, batch: Batch, indexes: Sequence[int]) -> None:
        """Write these documents; where one of them is refused, halve until it stands alone."""
        try:
            written = await self._write_patiently([batch.documents[index] for index in indexes])
        except InvalidArgumentError as error:
            if len(indexes) == 1:
                document = batch.documents[indexes[0]]
                problem = _FIELD.sub("", str(error)).rstrip(".")
                self._reject(Rejection(batch.places[indexes[0]], problem, document.id))
                return
            middle = len(indexes) // 2
            await self._write(batch, indexes[:middle])
            await self._write(batch, indexes[middle:])
            return
        self._tally.documents += len(indexes)
        self._tally.written += written.written
        self._tally.embedded += written.embedded
        self._tally.truncated += written.truncated

    async def _write_patiently(self, documents: Sequence[Document]) -> Written:
        """Write, and again after a growing pause while the sink is full or away; always with one request id."""
        request_id = str(uuid.uuid4())
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                written = await self._sink.write(documents, request_id)
            except self._sink.retryable as error:
                if not self._patience.lasts(error):
                    raise
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 spreads callers out
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            else:
                self._patience.succeeded()
                return written


async def _in_daemon(call: Callable[[], Result]) -> Result:
    """The result of a blocking call in a thread that does not keep the process alive.

    A read of standard input may never return; whoever interrupts the run must not have to wait for it.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # whatever it is, the caller gets it
            future.set_exception(error)

    threading.Thread(target=work, name="reader", daemon=True).start()
    return await asyncio.wrap_future(future)


async def remove_stale(sink: Sink, passage_counts: Mapping[str, int]) -> int:
    """Delete passages that a shorter version of a file no longer has: parent#n for n beyond the file's count.

    passage_counts: by parent id, of the files that were read whole. Returns how many were deleted.
    """
    removed = 0
    parents = list(passage_counts)
    for first in range(0, len(parents), _PARENTS_AT_ONCE):
        stale = await sink.stale(
            {parent: passage_counts[parent] for parent in parents[first : first + _PARENTS_AT_ONCE]}
        )
        for start in range(0, len(stale), _DELETE_AT_ONCE):
            await sink.delete(stale[start : start + _DELETE_AT_ONCE])
        removed += len(stale)
    return removed


def is_beyond(passage_id: str, passage_counts: Mapping[str, int]) -> bool:
    """Whether an id is parent#n with n beyond the parent's count; one of another form is somebody else's document."""
    parent, _, number = passage_id.rpartition("#")
    return parent in passage_counts and bool(_NUMBER.fullmatch(number)) and int(number) > passage_counts[parent]
