"""What a search holds while it runs: one immutable state of one collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from nearshore.index.view import IndexView
from nearshore.records import F32, Document
from nearshore.replica.payload import PayloadReader

Rows = Sequence[int] | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One collection at one feed position. Nothing it shows ever changes; hold it as long as you like."""

    position: int
    tag: bytes  # of the commit at `position`; empty at position 0
    commit_at: datetime | None  # None at position 0
    index: IndexView
    row_ids: Sequence[str]  # by row; may grow behind the rows of this view
    payload: PayloadReader

    def ids(self, rows: Rows) -> list[str]:
        """The ids of `rows`, in that order."""
        return [self.row_ids[row] for row in np.asarray(rows).tolist()]

    def documents(self, rows: Rows) -> list[Document]:
        """The documents of `rows`, in that order, from the local copy."""
        return self.payload.documents(rows, self.ids(rows))

    def vectors(self, rows: Rows) -> F32:
        """The stored vectors of `rows`: (m, d) float32, a copy."""
        taken: F32 = self.index.rows[np.asarray(rows, np.int64)]
        return taken


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """How true an answer is: what every search and read reports beside its result."""

    position: int
    tag: bytes  # of the commit at `position`, for the token; empty at position 0
    commit_at: datetime | None
    contact_age_s: float  # since the store last said what this collection's head is
    head: int  # the newest position of the store that this replica knows of
    generation: int
    history_changed: bool  # another history was found: this view belongs to the old one
    lag_s: float = 0.0  # since this replica heard of the oldest commit that this view has not

    @property
    def lag(self) -> int:
        """Commits that the store is known to have and this view has not."""
        return max(0, self.head - self.position)


@dataclass(frozen=True, slots=True)
class Status:
    """What an operator wants to know about one collection on this replica."""

    state: ReplicaState
    documents: int
    sealed_rows: int  # in the graph, dead ones included
    tail_rows: int  # beside it, scanned exactly
    dead_rows: int
    building: bool
    ready: bool  # loaded, and its first graph built


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far the first load of a collection is."""

    collection: str
    rows_read: int
    share: float  # of the history read, 0 to 1
    building: bool  # all read, the graph is being built
    ready: bool
