"""Forgetting: old commits and tombstones, rows of deleted collections, and the disk space they leave.

Every function does a bounded piece of work within an open transaction, so that writes get their turn in between.
"""

from __future__ import annotations

import sqlite3

from nearshore.store.collections import unknown

# The file shrinks when an eighth of it, and more than a few megabytes, is empty: smaller holes are soon filled again.
_MIN_FREE_PAGES = 1_024
_FREE_SHARE = 8
_SHRINK_PAGES = 256

_PURGE = (
    "DELETE FROM items WHERE row IN (SELECT row FROM items WHERE collection = ?1 LIMIT ?2)",
    """DELETE FROM commits WHERE collection = ?1
        AND pos IN (SELECT pos FROM commits WHERE collection = ?1 LIMIT ?2)""",
    """DELETE FROM requests WHERE collection = ?1
        AND id IN (SELECT id FROM requests WHERE collection = ?1 LIMIT ?2)""",
)

# Requests go before their commits: one without its commit would not be found, and its id could not be written again.
# The commit at the floor stays: a follower that stands exactly there must be able to prove it.
_FORGET = (
    """DELETE FROM items WHERE row IN
        (SELECT row FROM items WHERE collection = ?1 AND deleted = 1 AND pos <= ?2 LIMIT ?3)""",
    """DELETE FROM requests WHERE collection = ?1
        AND id IN (SELECT id FROM requests WHERE collection = ?1 AND pos < ?2 LIMIT ?3)""",
    """DELETE FROM commits WHERE collection = ?1
        AND pos IN (SELECT pos FROM commits WHERE collection = ?1 AND pos < ?2 LIMIT ?3)""",
)


def purge(connection: sqlite3.Connection, max_rows: int) -> bool:
    """Remove at most max_rows rows of a deleted collection. Returns False when nothing was left to remove."""
    found = connection.execute("SELECT collection FROM purges LIMIT 1").fetchall()
    if not found:
        return False
    collection_id = found[0][0]
    for statement in _PURGE:
        if connection.execute(statement, (collection_id, max_rows)).rowcount:
            return True
    connection.execute("DELETE FROM purges WHERE collection = ?", (collection_id,))
    return True


def shrink(connection: sqlite3.Connection) -> bool:
    """Give a few empty pages back to the file system. Returns False when too few are empty."""
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    if free < max(_MIN_FREE_PAGES, pages // _FREE_SHARE):
        return False
    connection.execute(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})").fetchall()
    return True


def forget(connection: sqlite3.Connection, collection_id: int, target: int, max_rows: int) -> bool:
    """Raise the floor to target, if it lies below, and remove some max_rows of what it made old.

    Returns False when nothing was left to remove.
    """
    floor = _floor(connection, collection_id)
    if floor < target:
        connection.execute("UPDATE collections SET floor = ? WHERE id = ?", (target, collection_id))
    place = (collection_id, max(floor, target), max_rows)
    return any(connection.execute(statement, place).rowcount for statement in _FORGET)


def last_position_before(connection: sqlite3.Connection, collection_id: int, before_us: int) -> int:
    """The last position whose commit, and every one before it, is older than before_us (microseconds since 1970)."""
    floor = _floor(connection, collection_id)
    younger = connection.execute(
        "SELECT pos FROM commits WHERE collection = ? AND at >= ? ORDER BY pos LIMIT 1", (collection_id, before_us)
    ).fetchall()
    if younger:
        return max(floor, int(younger[0][0]) - 1)
    head = connection.execute("SELECT head FROM collections WHERE id = ?", (collection_id,)).fetchall()
    return int(head[0][0])


def _floor(connection: sqlite3.Connection, collection_id: int) -> int:
    found = connection.execute("SELECT floor FROM collections WHERE id = ?", (collection_id,)).fetchall()
    if not found:
        raise unknown(collection_id)
    return int(found[0][0])
