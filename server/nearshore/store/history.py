"""Whether a cursor lies in a store's history: the one rule that every store follows."""

from __future__ import annotations

from nearshore.errors import HistoryChangedError
from nearshore.store.base import Cursor, Walk


def check_cursor(cursor: Cursor, tag: bytes | None, head: int, floor: int) -> None:
    """Raise HistoryChangedError unless cursor lies at or above floor, not beyond head, and has its commit's tag.

    tag: of the store's commit at cursor's position, None where there is none.
    """
    if cursor.position == 0:
        return
    if cursor.position > head:
        raise changed(f"position {cursor.position} is beyond the head, {head}")
    if cursor.position < floor:
        raise changed(f"position {cursor.position} is below the floor, {floor}")
    if tag != cursor.tag:
        raise changed(f"position {cursor.position} belongs to another commit here")


def check_walk(walk: Walk, seen_tag: bytes | None, head: int, floor: int) -> None:
    """Raise HistoryChangedError unless the walk can go on. seen_tag: as in check_cursor, of walk.seen's position."""
    check_cursor(walk.seen, seen_tag, head, floor)
    if floor > walk.started.position:
        raise changed("tombstones that this walk has not met were pruned")


def check_basis(basis: Cursor | None, tag: bytes | None) -> None:
    """Raise HistoryChangedError unless what was decided at basis may be done. tag: as in check_cursor."""
    if basis is not None and basis.position and tag != basis.tag:
        raise HistoryChangedError(
            f"What this call would change was decided at commit {basis.position}, which the store's history does not "
            "have any more: it was restored or failed over meanwhile.",
            "This call wrote nothing. Send the call again: it is then decided on what is there.",
        )


def changed(why: str) -> HistoryChangedError:
    """The error that says why."""
    return HistoryChangedError(
        f"The cursor does not belong to this store's history: {why}.", "Read the whole state again, from position 0."
    )
