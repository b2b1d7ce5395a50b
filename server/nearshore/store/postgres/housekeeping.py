"""Forgetting: old commits and tombstones, and rows of deleted collections.

Every function does a bounded piece of work within an open transaction, so that writes get their turn in between.
"""

from __future__ import annotations

from nearshore.store.collections import unknown
from nearshore.store.postgres.patience import Connection
from nearshore.store.postgres.wholeness import check_whole

_PURGE = (
    """DELETE FROM items WHERE collection = %(id)s
        AND key IN (SELECT key FROM items WHERE collection = %(id)s LIMIT %(rows)s)""",
    """DELETE FROM commits WHERE collection = %(id)s
        AND pos IN (SELECT pos FROM commits WHERE collection = %(id)s LIMIT %(rows)s)""",
    """DELETE FROM requests WHERE collection = %(id)s
        AND id IN (SELECT id FROM requests WHERE collection = %(id)s LIMIT %(rows)s)""",
)

# By place, not by key: nobody moves these rows while the collection is locked, and no plan can go wrong. Requests go
# before their commits: one without its commit would not be found, and its id could not be written again. The commit at
# the floor stays: a follower that stands exactly there must be able to prove it.
_FORGET = (
    """DELETE FROM items WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM items WHERE collection = %(id)s AND deleted AND pos <= %(floor)s LIMIT %(rows)s))""",
    """DELETE FROM requests WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM requests WHERE collection = %(id)s AND pos < %(floor)s LIMIT %(rows)s))""",
    """DELETE FROM commits WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM commits WHERE collection = %(id)s AND pos < %(floor)s LIMIT %(rows)s))""",
)


def purge(connection: Connection, max_rows: int) -> bool:
    """Remove at most max_rows rows of a deleted collection. Returns False when nothing was left to remove.

    A collection that another process is removing is left to it.
    """
    found = connection.execute("SELECT collection FROM purges LIMIT 1 FOR UPDATE SKIP LOCKED").fetchall()
    if not found:
        return False
    place = {"id": found[0][0], "rows": max_rows}
    for statement in _PURGE:
        if connection.execute(statement, place).rowcount:
            return True
    connection.execute("DELETE FROM purges WHERE collection = %(id)s", place)
    return True


def forget(connection: Connection, collection_id: int, target: int, max_rows: int) -> bool:
    """Raise the floor to target, if it lies below, and remove some max_rows of what it made old.

    Returns False when nothing was left to remove.
    """
    found = connection.execute(
        "SELECT floor FROM collections WHERE id = %s FOR NO KEY UPDATE", (collection_id,)
    ).fetchall()
    if not found:
        check_whole(connection)
        raise unknown(collection_id)
    floor = int(found[0][0])
    if floor < target:
        connection.execute("UPDATE collections SET floor = %s WHERE id = %s", (target, collection_id))
    place = {"id": collection_id, "floor": max(floor, target), "rows": max_rows}
    return any(connection.execute(statement, place).rowcount for statement in _FORGET)


def last_position_before(connection: Connection, collection_id: int, keep_s: float) -> int:
    """The last position whose commit, and every one before it, is older than keep_s by PostgreSQL's clock."""
    found = connection.execute(
        """
        SELECT k.floor,
            (SELECT pos FROM commits WHERE collection = k.id AND at >= clock_timestamp() - make_interval(secs => %s)
             ORDER BY pos LIMIT 1),
            (SELECT pos FROM commits WHERE collection = k.id ORDER BY pos DESC LIMIT 1)
        FROM collections k WHERE k.id = %s""",
        (keep_s, collection_id),
    ).fetchall()
    if not found:
        check_whole(connection)
        raise unknown(collection_id)
    floor, younger, head = found[0]
    return max(floor, younger - 1) if younger is not None else head or 0
