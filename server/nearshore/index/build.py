"""Builds made aside: what to build is planned from a view, run in any thread, and adopted by the segment."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nearshore.index.columns import Columns
from nearshore.index.rows import Rows
from nearshore.index.scan import I64
from nearshore.index.sealed import TRAINING_ROWS, Sealed, index_bytes, raise_if
from nearshore.index.view import IndexView

BuildKind = Literal["seal", "rebuild"]
_COPY_ROWS = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class Compacted:
    """The live rows of a view under new numbers."""

    rows: Rows
    columns: Columns
    origin: I64  # (m,) the old number of each new row, ascending


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """What a plan made, for Segment.adopt."""

    view: IndexView  # what it was made from
    sealed: Sealed | None
    compacted: Compacted | None  # None: the rows keep their numbers


@dataclass(frozen=True, slots=True, eq=False)
class BuildPlan:
    """One build to be run aside.

    "seal" takes the tail into a clone of the graph; it trains and builds a new graph where there is none, or where the
    tail lies beyond the range of the old one's codes. "rebuild" leaves the dead rows behind and builds from the rest.
    """

    kind: BuildKind
    view: IndexView
    with_graph: bool
    path: Path  # of a rebuild's rows
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def memory_bytes(self) -> int:
        """Roughly the memory that run() takes at its peak, beyond what the segment holds already."""
        row_count, dimensions = (self.view.live if self.kind == "rebuild" else self.view.n), self.view.rows.shape[1]
        graph_bytes = 2 * index_bytes(row_count, dimensions) if self.with_graph else 0  # twice: it moves as it grows
        sample_bytes = 4 * dimensions * min(row_count, TRAINING_ROWS) if self.with_graph else 0
        copy_bytes = 4 * dimensions * _COPY_ROWS + 64 * row_count if self.kind == "rebuild" else 0
        return graph_bytes + sample_bytes + copy_bytes

    def cancel(self) -> None:
        """Make run(), in whichever thread, end within a second or so."""
        self._cancelled.set()

    def run(self) -> Built:
        """Build. Touches nothing of the segment. Raises BuildCancelled after cancel(), StorageFullError."""
        raise_if(self._cancelled.is_set)
        if self.kind == "seal":
            return Built(self.view, self._sealed_further(), None)
        compacted = self._compacted()
        try:
            graph = self.with_graph and len(compacted.rows)
            vectors, metric = compacted.rows.array(), self.view.metric
            sealed = Sealed.build(vectors, metric, self._cancelled.is_set) if graph else None
        except BaseException:
            compacted.rows.remove()
            raise
        return Built(self.view, sealed, compacted)

    def _sealed_further(self) -> Sealed:
        view, tail = self.view, self.view.rows[self.view.sealed_rows :]
        if view.sealed is None or not view.sealed.covers(tail):
            return Sealed.build(view.rows, view.metric, self._cancelled.is_set)
        return view.sealed.extend(tail, self._cancelled.is_set)

    def _compacted(self) -> Compacted:
        origin = view_live_rows(self.view)
        self.path.unlink(missing_ok=True)
        rows = Rows(self.path, self.view.rows.shape[1])
        try:
            rows.reserve(len(origin))
            for start in range(0, len(origin), _COPY_ROWS):
                raise_if(self._cancelled.is_set)
                rows.append(self.view.vectors(origin[start : start + _COPY_ROWS]))
            columns = Columns()
            columns.append_from(self.view.columns, origin)
        except BaseException:
            rows.remove()
            raise
        return Compacted(rows, columns, origin)


def view_live_rows(view: IndexView) -> I64:
    """The numbers (live,) of the view's live rows, ascending."""
    return view.alive.nonzero()[0]
