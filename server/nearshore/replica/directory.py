"""Which row each id has, as the published view sees it, while the follower already enters what comes next.

The caller holds the replica's lock around every method here; each call is short (a page of the feed at most).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from sortedcontainers import SortedList

_ABSENT = -1
_MAX_PASSED_IDS = 2_000
_YIELD_EVERY_ROWS = 1_000


class Directory:
    """Ids to rows, and the ids in order."""

    def __init__(self, rows: dict[str, int] | None = None) -> None:
        """Start with these rows, taken over, or empty."""
        self._rows: dict[str, int] = {} if rows is None else rows
        self._order: SortedList = SortedList(self._rows)  # a superset: also ids that are about to go
        self._published: dict[str, int] = {}  # the published rows of ids that were changed since
        self._gone: set[str] = set()  # deleted, still in _order

    def enter(self, changes: Iterable[tuple[str, int]]) -> list[int]:
        """Give each id its new row (-1: deleted) and return the rows that die of it. Unseen until publish()."""
        killed = []
        for document_id, row in changes:
            old = self._rows.get(document_id, _ABSENT)
            self._published.setdefault(document_id, old)
            if old != _ABSENT:
                killed.append(old)
            if row == _ABSENT:
                self._leave(document_id, old)
            else:
                self._arrive(document_id, old, row)
        return killed

    def _leave(self, document_id: str, old: int) -> None:
        if old != _ABSENT:
            del self._rows[document_id]
            self._gone.add(document_id)

    def _arrive(self, document_id: str, old: int, row: int) -> None:
        self._rows[document_id] = row
        if document_id in self._gone:
            self._gone.discard(document_id)
        elif old == _ABSENT:
            self._order.add(document_id)

    def publish(self) -> None:
        """From now on lookups see everything that was entered."""
        self._published = {}

    def row(self, document_id: str) -> int:
        """The row of an id in the published view; -1: none."""
        before = self._published.get(document_id)
        return self._rows.get(document_id, _ABSENT) if before is None else before

    def rows_after(self, after_id: str, limit: int, allowed: npt.NDArray[np.bool_] | None) -> list[int] | None:
        """The published rows of the first `limit` ids behind `after_id`, in order of id, of those allowed (n,).

        None when that would mean to look at too many ids while the caller holds the lock.
        """
        rows: list[int] = []
        ids = self._order.irange(after_id or None, inclusive=(False, False))
        for document_id in itertools.islice(ids, limit + _MAX_PASSED_IDS):
            row = self.row(document_id)
            if row != _ABSENT and (allowed is None or allowed[row]):
                rows.append(row)
                if len(rows) == limit:
                    return rows
        return rows if next(ids, None) is None else None

    def sweep(self, limit: int) -> bool:
        """Take up to `limit` deleted and published ids out of the order. Returns whether some are left."""
        for _ in range(min(limit, len(self._gone)) if not self._published else 0):
            self._order.remove(self._gone.pop())
        return bool(self._gone) and not self._published

    def renumbered(self, old_to_new: Sequence[int]) -> dict[str, int]:
        """All rows as a rebuild renumbers them. Needs no lock in the thread that enters changes; changes nothing."""
        moved = {}
        for count, (document_id, row) in enumerate(self._rows.items(), 1):
            moved[document_id] = old_to_new[row]
            if count % _YIELD_EVERY_ROWS == 0:
                time.sleep(0)  # lets the event loop have the interpreter
        return moved

    def replace(self, rows: dict[str, int]) -> None:
        """Take over what renumbered() made; nothing unpublished may be pending."""
        self._rows = rows
