"""The writer's side of one collection's index: one thread appends, kills, publishes views and adopts builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearshore.index.build import BuildKind, BuildPlan, Built, Compacted
from nearshore.index.columns import Columns
from nearshore.index.rows import Rows
from nearshore.index.saved import ROWS_FILE, load_parts
from nearshore.index.scan import I64, Bools
from nearshore.index.sealed import Sealed
from nearshore.index.view import IndexView
from nearshore.records import F32, Document, IndexKind, Metric

_MIN_DEAD_ROWS = 100
"""Fewer dead rows than this are not worth a rebuild, whatever their share."""


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """When to build what; the settings of the same names."""

    exact_rows: int = 20_000
    max_tail_rows: int = 10_000
    max_dead_share: float = 0.2
    build_memory_bytes: int = 8 << 30


class Segment:
    """Rows of one collection under numbers that are never reused until a rebuild is adopted.

    An update of a document is a new row and the death of its old one, published together. Every method belongs to one
    thread; views, plans and save() belong to anyone.
    """

    def __init__(
        self, folder: Path, *, dimensions: int, metric: Metric, kind: IndexKind, options: IndexOptions
    ) -> None:
        """An empty segment that keeps its rows in `folder`, which is created; its row files go with close()."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._dimensions, self._metric, self._kind, self._options = dimensions, metric, kind, options
        self._generation = 0
        path = self._rows_path()
        path.unlink(missing_ok=True)
        self._rows = Rows(path, dimensions)
        self._columns = Columns()
        self._alive = np.empty(0, bool)  # longer than the rows are many
        self._live = 0
        self._sealed: Sealed | None = None
        self._plan: BuildPlan | None = None
        self._blocked = ""

    @classmethod
    def load(cls, folder: Path, *, dimensions: int, metric: Metric, kind: IndexKind, options: IndexOptions) -> Segment:
        """A segment of what save() wrote into `folder`, in which it goes on working: rows.f32 grows in place.

        Rows keep their numbers. Raises CorruptIndexError when the files do not fit together or are of another format,
        dimensions or metric.
        """
        parts = load_parts(folder, dimensions, metric)
        segment = cls(folder, dimensions=dimensions, metric=metric, kind=kind, options=options)
        rows = Rows(folder / ROWS_FILE, dimensions, len(parts.alive))
        segment._rows.remove()
        segment._rows, segment._columns, segment._sealed = rows, parts.columns, parts.sealed
        segment._alive, segment._live = parts.alive, int(np.count_nonzero(parts.alive))
        segment._generation = parts.generation
        return segment

    @property
    def row_count(self) -> int:
        """Rows, dead ones included."""
        return len(self._rows)

    @property
    def live_count(self) -> int:
        """Rows that a search can find."""
        return self._live

    @property
    def dead_rows(self) -> int:
        """Rows that the next rebuild drops."""
        return self.row_count - self._live

    @property
    def tail_rows(self) -> int:
        """Rows beside the graph; all of them where there is none."""
        return self.row_count - (self._sealed.row_count if self._sealed else 0)

    @property
    def blocked(self) -> str:
        """Why the build that is due does not happen; empty when all is well."""
        return self._blocked

    def append(self, vectors: F32, documents: Sequence[Document]) -> int:
        """Append one live row a document, vectors (m, d); returns the first row's number.

        Raises StorageFullError, appending nothing.
        """
        assert vectors.shape == (len(documents), self._dimensions), f"{vectors.shape} for {len(documents)} documents"
        first = self._rows.append(vectors)
        self._columns.append(documents)
        self._set_alive(first, self.row_count)
        return first

    def kill(self, rows: Sequence[int] | I64) -> None:
        """Mark rows dead. A row may be killed again."""
        numbers = np.unique(np.asarray(rows, np.int64))
        assert not len(numbers) or (numbers[0] >= 0 and numbers[-1] < self.row_count), "a row that does not exist"
        self._live -= int(np.count_nonzero(self._alive[numbers]))
        self._alive[numbers] = False

    def publish(self) -> IndexView:
        """The present state, frozen. Shares all but the bitmap of live rows, which is copied: one byte a row."""
        return IndexView(
            rows=self._rows.array(),
            alive=self._alive[: self.row_count].copy(),
            live=self._live,
            columns=self._columns,
            sealed=self._sealed,
            metric=self._metric,
            generation=self._generation,
        )

    def pending_build(self) -> BuildPlan | None:
        """The build that is due, if any; none while another is out, or when it does not fit the memory budget.

        Whoever takes a plan ends it with adopt() or abandon().
        """
        kind = self._due()
        if kind is None or self._plan is not None:
            return None
        graph = kind == "seal" or self._wants_graph(self._live)
        plan = BuildPlan(kind, self.publish(), graph, self._rows_path(self._generation + 1))
        if plan.memory_bytes > self._options.build_memory_bytes:
            self._blocked = (
                f"A {kind} of {self.row_count} rows takes about {plan.memory_bytes >> 20} MiB, more than"
                f" index.build_memory_bytes ({self._options.build_memory_bytes >> 20} MiB)."
            )
            return None
        self._blocked = ""
        self._plan = plan
        return plan

    def abandon(self) -> None:
        """Forget the plan that is out: it failed, or was cancelled."""
        self._plan = None

    def adopt(self, built: Built) -> I64 | None:
        """Put a build to use, with what was appended and killed while it was made.

        Returns the new number of every row (n,), -1 for the dead; None when rows keep their numbers. Raises
        StorageFullError, changing nothing; then try again, or abandon() and leave the build's file to close().
        """
        renumbered = None if built.compacted is None else self._move_to(built.compacted, built.view.n)
        self._sealed = built.sealed
        self._generation += 1
        self._plan = None
        return renumbered

    def close(self) -> None:
        """Delete the working files. Views go on working."""
        self._rows.remove()
        for path in self._folder.glob("rows-*.f32"):
            path.unlink(missing_ok=True)

    def _move_to(self, compacted: Compacted, planned_rows: int) -> I64:
        """Carry over what happened since the plan was made; the old→new numbers."""
        late = planned_rows + np.flatnonzero(self._alive[planned_rows : self.row_count])
        compacted.rows.reserve(len(late))
        origin = np.append(compacted.origin, late)
        alive = self._alive[origin]
        compacted.rows.append(self._rows.array()[late])
        compacted.columns.append_from(self._columns, late)
        numbers = np.full(self.row_count, -1, np.int64)
        numbers[origin[alive]] = np.flatnonzero(alive)
        self._rows.remove()
        self._rows, self._columns = compacted.rows, compacted.columns
        self._alive, self._live = alive, int(np.count_nonzero(alive))
        return numbers

    def _due(self) -> BuildKind | None:
        if self.dead_rows >= max(_MIN_DEAD_ROWS, self._options.max_dead_share * self.row_count):
            return "rebuild"
        graph = self._sealed is not None or self._wants_graph(self._live)
        return "seal" if graph and self.tail_rows > self._options.max_tail_rows else None

    def _wants_graph(self, live: int) -> bool:
        match self._kind:
            case IndexKind.EXACT:
                return False
            case IndexKind.HNSW:
                return live > self._options.max_tail_rows
            case IndexKind.AUTO:
                return live > max(self._options.exact_rows, self._options.max_tail_rows)

    def _set_alive(self, first: int, end: int) -> None:
        if end > len(self._alive):
            grown: Bools = np.zeros(max(end, len(self._alive) * 3 // 2), bool)
            grown[:first] = self._alive[:first]
            self._alive = grown
        self._alive[first:end] = True
        self._live += end - first

    def _rows_path(self, generation: int | None = None) -> Path:
        return self._folder / f"rows-{self._generation if generation is None else generation}.f32"
