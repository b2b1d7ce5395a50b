"""Where blocking work runs, so that one kind never holds up another."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from nearshore.documents.store_threads import StoreThreads


@dataclass(frozen=True, slots=True)
class Threads:
    """The executors of one process."""

    work: Executor  # everything else: long messages, long texts, documents from the local copy
    searches: Executor
    store: StoreThreads  # calls that ask the store, which may be slow, hang or be away
    changes: StoreThreads  # one thread: what creates and deletes collections waits for a missing standby, however long
