"""What a search sees: one immutable state of one segment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearshore.index.columns import Columns
from nearshore.index.filters import Filter
from nearshore.index.scan import I64, Bools, best, scan, score_rows
from nearshore.index.sealed import Sealed
from nearshore.records import F32, Metric

EXACT_SHARE = 0.15
"""Below this share of allowed rows among the live ones a search is exact at once (docs/decisions/0004)."""
EF_COST_ROWS = 32
"""One candidate more in the graph costs about as much as scoring so many rows in a scan (2 µs beside 0.06 µs)."""
_MARGIN = 4
"""A graph search keeps so many times as many candidates as it must look through to find k that are live and allowed.

With the 130 nearest of 100,000 rows deleted, 2 gave recall@10 0.978; 4, and 8 where it had to widen, give 0.988.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of one search."""

    rows: I64  # (m,) best first, equal scores by row
    scores: F32  # (m,) exact float32, more is closer
    exact: bool  # every allowed row was scored
    scanned: int  # rows scored in float32
    ef: int  # candidates that the graph search kept; 0 where no graph was searched
    candidates: int  # live rows that were allowed


@dataclass(frozen=True, eq=False)
class IndexView:
    """Rows 0 to n - 1 as they were when it was published. Threads share it freely; it never changes."""

    rows: F32  # (n, d), memory-mapped
    alive: Bools  # (n,)
    live: int  # how many are
    columns: Columns  # of which the first n rows are this view's
    sealed: Sealed | None  # holds the first sealed_rows rows; the rest is the tail
    metric: Metric
    generation: int  # grows with every newly built index

    @property
    def n(self) -> int:
        """Rows, dead ones included."""
        return len(self.alive)

    @property
    def sealed_rows(self) -> int:
        """Rows in the graph."""
        return self.sealed.row_count if self.sealed else 0

    def mask(self, condition: Filter | None) -> Bools | None:
        """The live rows (n,) that match; None for no condition."""
        return None if condition is None else self.columns.mask(condition, self.n) & self.alive

    def vectors(self, rows: I64) -> F32:
        """A copy (m, d) of the vectors of these rows."""
        copied: F32 = self.rows[rows]
        return copied

    def search(
        self,
        query: F32,
        *,
        k: int,
        allowed: Bools | None = None,
        exact: bool = False,
        ef: int = 128,
        score_threshold: float | None = None,
    ) -> Found:
        """The k closest live, allowed rows to query (d,): k of them whenever so many exist and reach the threshold.

        allowed (n,), None for all; exact: score them all; ef: candidates of the graph search to begin with; k and ef at
        least 1. Raises ValueError for a query of another width.
        """
        mask = self.alive if allowed is None else allowed & self.alive
        candidates = self.live if allowed is None else int(np.count_nonzero(mask))
        found = None
        if not exact and self.sealed is not None and candidates >= EXACT_SHARE * self.live:
            found = self._search_graph(self.sealed, query, k, mask, candidates, ef)
        if found is None:
            rows, scores, scanned = scan(self.rows, query, mask, self.metric, k)
            found = Found(rows, scores, True, scanned, 0, candidates)
        return found if score_threshold is None else _reaching(found, score_threshold)

    def _search_graph(self, sealed: Sealed, query: F32, k: int, mask: Bools, candidates: int, ef: int) -> Found | None:
        """Widen until k allowed rows lie among the nearest of the candidates; None once a scan is cheaper.

        The other candidates are the margin for what the graph missed and the codes misplaced.
        """
        # Enough where the filter has nothing to do with the query, and is met a little less often than on average.
        expected = int(_MARGIN * k * (1.25 * self.live / candidates if candidates < self.live else 1))
        ef = max(ef, expected)
        while ef * EF_COST_ROWS < candidates:
            nearest = sealed.search(query, ef)
            permitted = mask[nearest]
            met = np.flatnonzero(permitted)[:k]
            needed = _MARGIN * (int(met[-1]) + 1) if len(met) == k else 4 * ef
            if needed <= ef:
                rows, scores, scanned = self._with_tail(sealed, query, k, mask, nearest[permitted])
                return Found(rows, scores, False, scanned, ef, candidates)
            ef = 2 * needed  # what lies in the way of this query thins the margin too
        return None

    def _with_tail(self, sealed: Sealed, query: F32, k: int, mask: Bools, graph_rows: I64) -> tuple[I64, F32, int]:
        """The k best of the graph's candidates and of the tail, scored in float32; and how many were scored."""
        graph_scores = score_rows(self.rows, query, graph_rows, self.metric)
        if sealed.row_count == self.n:
            return *best(graph_rows, graph_scores, k), len(graph_rows)
        tail_rows, tail_scores, scanned = scan(self.rows, query, mask, self.metric, k, sealed.row_count)
        rows, scores = best(np.append(graph_rows, tail_rows), np.append(graph_scores, tail_scores), k)
        return rows, scores, scanned + len(graph_rows)


def _reaching(found: Found, score_threshold: float) -> Found:
    count = int(np.count_nonzero(found.scores >= score_threshold))
    return Found(found.rows[:count], found.scores[:count], found.exact, found.scanned, found.ef, found.candidates)
