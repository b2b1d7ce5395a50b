"""Writing batches: many at once, patiently, and around what is refused."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import pytest

from nearshore.documents.errors import EmptyTextError
from nearshore.errors import NearshoreError, OverloadedError, StorageFullError
from nearshore.records import Document
from nearshore_indexer.batches import Batch
from nearshore_indexer.entries import Place, Rejection
from nearshore_indexer.pipeline import Pipeline, Tally, Window, Written, is_beyond, remove_stale


class FakeSink:
    """Remembers what it was given; refuses documents whose text says so."""

    name = "the fake"
    retryable: tuple[type[NearshoreError], ...] = (OverloadedError,)

    def __init__(self, *, overloaded: int = 0, together: int = 1) -> None:
        """together: writes wait until so many are under way at once."""
        self.together = together
        self.met = asyncio.Event()
        self.written: list[str] = []
        self.request_ids: list[str] = []
        self.overloaded = overloaded  # how many of the first writes are refused for now
        self.under_way = self.most_under_way = 0

    async def write(self, documents: Sequence[Document], request_id: str) -> Written:
        self.request_ids.append(request_id)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.under_way == self.together:
                self.met.set()
            await self.met.wait()
            await asyncio.sleep(0)
            if self.overloaded:
                self.overloaded -= 1
                raise OverloadedError("full")
            for index, document in enumerate(documents):
                if document.text == "bad":
                    raise EmptyTextError(f"documents[{index}].text is bad.", "Mend it.")
                if document.text == "fatal":
                    raise StorageFullError("writing")
            self.written += [document.id for document in documents]
            return Written(len(documents), len(documents), 0)
        finally:
            self.under_way -= 1

    async def wait_searchable(self) -> None:
        """Everything is at once."""

    async def stale(self, passage_counts: Mapping[str, int]) -> list[str]:
        return [one for one in self.written if is_beyond(one, passage_counts)]

    async def delete(self, ids: Sequence[str]) -> None:
        self.written = [one for one in self.written if one not in ids]


def made(*texts: Sequence[str]) -> Iterator[Batch]:
    """Batches of documents with these texts and ids 0, 1, 2, ..."""
    number = 0
    for batch in texts:
        documents = tuple(Document(str(number + index), text) for index, text in enumerate(batch))
        places = tuple(Place("f", number + index + 1) for index in range(len(batch)))
        number += len(batch)
        yield Batch(documents, places, 10)


def _ignore(_: object) -> None:
    """Nobody is told."""


def run(sink: FakeSink, source: Iterator[Batch], window: Window | None = None) -> tuple[Tally, list[Rejection]]:
    """Write everything; what was counted and what was refused."""
    tally, rejected = Tally(), list[Rejection]()
    pipeline = Pipeline(sink, tally, reject=rejected.append, report=_ignore, warn=_ignore, window=window)
    asyncio.run(pipeline.run(source))
    return tally, rejected


def test_every_document_is_written_once() -> None:
    """The tally counts them, and the bytes they were read from."""
    sink = FakeSink()
    tally, rejected = run(sink, made(["a"] * 7, ["b"] * 7, ["c"]))
    assert sorted(sink.written, key=int) == [str(number) for number in range(15)]
    assert (tally.documents, tally.embedded, tally.source_bytes, rejected) == (15, 15, 30, [])


def test_what_the_sink_refuses_is_found_by_halving() -> None:
    """Its place and reason are reported without the sink's own index; all others are written."""
    sink = FakeSink()
    tally, rejected = run(sink, made(["a", "b", "bad", "c", "d", "bad", "e"]))
    assert sorted(sink.written) == ["0", "1", "3", "4", "6"]
    assert [(str(one.place), one.problem, one.id) for one in rejected] == [
        ("f:3", "text is bad. Mend it", "2"),
        ("f:6", "text is bad. Mend it", "5"),
    ]
    assert tally.documents == 5


def test_a_full_sink_is_tried_again_with_the_same_request_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a write whose answer was lost is not made twice."""
    monkeypatch.setattr("nearshore_indexer.pipeline._FIRST_PAUSE_S", 0.001)
    sink = FakeSink(overloaded=3)
    tally, _ = run(sink, made(["a"]))
    assert tally.documents == 1
    assert len(sink.request_ids) == 4
    assert len(set(sink.request_ids)) == 1


def test_patience_ends() -> None:
    """A sink that stays full for longer than asked for ends the run with its error."""
    with pytest.raises(OverloadedError):
        run(FakeSink(overloaded=1_000), made(["a"]), Window(patience_s=0.0))


def test_what_is_under_way_is_bounded() -> None:
    """By the number of batches."""
    sink = FakeSink(together=4)
    run(sink, made(*(["a"] for _ in range(50))), Window(batches=4))
    assert sink.most_under_way == 4


class SlowerSink(FakeSink):
    """Is quick with the first two documents; all later writes wait until four are under way."""

    async def write(self, documents: Sequence[Document], request_id: str) -> Written:
        assert self.under_way < 2 + len(self.written)
        if documents[0].id in {"0", "1"}:
            self.written.append(documents[0].id)
            return Written(1, 1, 0)
        return await super().write(documents, request_id)


def test_the_window_opens_as_batches_are_done() -> None:
    """Two at first, one more with each that is done: so the first are committed early, and a kill costs little."""
    sink = SlowerSink(together=4)
    tally, _ = run(sink, made(*(["a"] for _ in range(20))), Window(batches=6, first_batches=2))
    assert tally.documents == 20
    assert 4 <= sink.most_under_way <= 6


def test_tokens_under_way_are_bounded_but_never_block() -> None:
    """A batch larger than the window goes alone."""
    sink = FakeSink()
    tally, _ = run(sink, made(*(["word " * 100] for _ in range(5))), Window(tokens=1))
    assert (tally.documents, sink.most_under_way) == (5, 1)


def test_an_error_that_cannot_be_waited_out_ends_the_run() -> None:
    """Nothing is left running behind it, and what was written counts."""
    sink = FakeSink()
    with pytest.raises(StorageFullError):
        run(sink, made(["a"], ["fatal"], *(["b"] for _ in range(100))))
    assert sink.under_way == 0


def test_stale_passages_are_removed() -> None:
    """Only parent#n beyond the present count; ids of another form are somebody else's; a file may have any name."""
    sink = FakeSink()
    parent = 'a "b"*\\\n.md'
    sink.written = [f"{parent}#1", f"{parent}#2", f"{parent}#3", f"{parent}#x", parent, "other#9"]
    assert asyncio.run(remove_stale(sink, {parent: 1})) == 2
    assert sink.written == [f"{parent}#1", f"{parent}#x", parent, "other#9"]
