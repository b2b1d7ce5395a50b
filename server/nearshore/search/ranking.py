"""The best hits of one query in one view: ties in a fixed order, and why there are no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nearshore.index import Found
from nearshore.records import F32, FewerReason
from nearshore.replica import ReplicaView
from nearshore.search.queries import Query

_MAX_TIES = 1_000
"""Documents looked at behind the window to put equal scores into the order of their ids. Where more are equal (a text
stored thousands of times) the end of a page is the index's choice, for looking further costs a scan of everything."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ranked:
    """The hits of one query, best first."""

    rows: npt.NDArray[np.int64]  # (m,)
    scores: list[float]  # (m,)
    fewer_reason: FewerReason
    found: Found


def rank(view: ReplicaView, query: Query, vector: F32, allowed: Mask | None, self_row: int | None) -> Ranked:
    """Search `view` for `vector` (d,) among the allowed rows (n,), leaving self_row out."""
    needed = query.window + (self_row is not None)
    found = _search_past_ties(view, query, vector, allowed, needed)
    ids = view.ids(found.rows)
    order = sorted(range(len(ids)), key=lambda each: (-found.scores[each], ids[each]))
    best = [each for each in order if found.rows[each] != self_row]
    chosen = best[query.offset : query.window]
    return Ranked(
        found.rows[chosen],
        found.scores[chosen].tolist(),
        _fewer_reason(view, query, found, allowed, len(chosen)),
        found,
    )


def _search_past_ties(view: ReplicaView, query: Query, vector: F32, allowed: Mask | None, needed: int) -> Found:
    """Find the `needed` best and everything that ties with the last of them, so that a page's end is no accident."""
    k = needed + 1
    while True:
        found = view.index.search(
            vector,
            k=k,
            allowed=allowed,
            exact=query.exact,
            ef=query.ef_search,
            score_threshold=query.score_threshold,
        )
        complete = len(found.rows) < k or found.scores[needed - 1] != found.scores[-1]
        if complete or k >= needed + _MAX_TIES:
            return found
        k = min(needed + 8 * (k - needed), needed + _MAX_TIES)


def _fewer_reason(view: ReplicaView, query: Query, found: Found, allowed: Mask | None, hits: int) -> FewerReason:
    if hits == query.limit:
        return FewerReason.NONE
    if len(found.rows) < found.candidates:  # everything allowed is found unless the threshold cuts it
        return FewerReason.SCORE_THRESHOLD
    if allowed is not None and found.candidates < view.index.live:
        return FewerReason.FILTER
    return FewerReason.COLLECTION
