"""Groups what was read into batches for writing, and sorts out what cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nearshore.records import Document
from nearshore_indexer.entries import Entry, Place, Rejection
from nearshore_indexer.sources import Reader

_CHARACTERS_PER_TOKEN = 3  # few, so that the estimate is rather too high
_MAX_TOKENS = 512  # a model cuts longer text


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents that are written together."""

    documents: tuple[Document, ...]
    places: tuple[Place, ...]  # where each was read
    source_bytes: int  # of the input on disk that it was read from, about

    @property
    def estimated_tokens(self) -> int:
        """About how many tokens embedding them takes."""
        texts = (len(document.title) + len(document.text) for document in self.documents)
        return sum(min(2 + characters // _CHARACTERS_PER_TOKEN, _MAX_TOKENS) for characters in texts)


def batches(reader: Reader, *, size: int, max_bytes: int, reject: Callable[[Rejection], None]) -> Iterator[Batch]:
    """Everything the reader gives, at most `size` documents and about max_bytes of text a batch.

    An id that comes a second time is rejected: batches are written side by side, so which of the two would stay could
    not be said.
    """
    seen: set[str] = set()
    waiting: list[Entry] = []
    waiting_bytes = done_bytes = 0
    for item in reader:
        if isinstance(item, Rejection):
            reject(item)
            continue
        document = item.document
        if document.id in seen:
            reject(Rejection(item.place, f"the id {document.id!r:.80} came before", document.id))
            continue
        seen.add(document.id)
        waiting.append(item)
        waiting_bytes += 4 * (len(document.text) + len(document.title))
        if len(waiting) == size or waiting_bytes >= max_bytes:
            yield _batch(waiting, reader.read_bytes - done_bytes)
            waiting, waiting_bytes, done_bytes = [], 0, reader.read_bytes
    if waiting:
        yield _batch(waiting, reader.read_bytes - done_bytes)


def _batch(entries: list[Entry], source_bytes: int) -> Batch:
    documents, places = zip(*((entry.document, entry.place) for entry in entries), strict=True)
    return Batch(documents, places, source_bytes)
