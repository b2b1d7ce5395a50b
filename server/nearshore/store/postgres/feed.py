"""Reading documents, and the feed: state in the order of (position, id), page by page, each from one transaction.

As in the SQLite store: a row that is written again during a walk moves ahead and is met again later in the same walk,
so at the walk's end the follower has the state at the head that the last page saw. A page is one round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from nearshore.errors import WriteTokenExpiredError
from nearshore.records import Item, Outline
from nearshore.store.base import MAX_PAGE_COMMITS, Cursor, FeedPage, Walk
from nearshore.store.collections import unknown
from nearshore.store.feed import MAX_PAGE_BYTES, MAX_PAGE_ROWS
from nearshore.store.history import check_cursor, check_walk
from nearshore.store.metadata import decode_metadata
from nearshore.store.postgres.patience import Connection
from nearshore.store.postgres.wholeness import check_whole, restoring
from nearshore.store.rows import decode_item, prefix_end

_STATE = """
SELECT EXISTS (SELECT 1 FROM pg_class WHERE oid = to_regclass('items_feed')),
    k.id, coalesce(head.pos, 0), head.tag, head.at, k.floor, cursor.tag, seen.tag
FROM (VALUES (%s::bigint)) AS wanted(id)
LEFT JOIN collections k ON k.id = wanted.id
LEFT JOIN LATERAL (SELECT pos, tag, at FROM commits WHERE collection = k.id ORDER BY pos DESC LIMIT 1) AS head ON true
LEFT JOIN commits cursor ON cursor.collection = k.id AND cursor.pos = %s
LEFT JOIN commits seen ON seen.collection = k.id AND seen.pos = %s"""
_HEADS = """
SELECT whole, k.id, head.pos, head.tag
FROM (SELECT EXISTS (SELECT 1 FROM pg_class WHERE oid = to_regclass('items_feed')) AS whole) AS restore
LEFT JOIN collections k ON true
LEFT JOIN LATERAL (SELECT pos, tag FROM commits WHERE collection = k.id ORDER BY pos DESC LIMIT 1) AS head ON true"""
_COMMITS = "SELECT pos, tag FROM commits WHERE collection = %s AND pos > %s ORDER BY pos DESC LIMIT %s"
# The columns of rows.decode_item, and how many rows there would be. A page ends where its bytes do: the sizes are
# known without reading what is stored apart from its row.
_PAGE = """
SELECT key, pos, deleted, hash, parent_id, title, metadata, text, vector, total FROM (
    SELECT page.*, count(*) OVER () AS total, row_number() OVER ordered AS number,
        sum(size) OVER ordered - size AS before
    FROM (
        SELECT key, pos, deleted, hash, parent_id, title, metadata, text, vector, coalesce(octet_length(text)
            + octet_length(vector) + octet_length(metadata) + octet_length(title), 0) AS size
        FROM items WHERE collection = %(id)s AND (pos, key) > (%(pos)s, %(key)s::text)
        ORDER BY pos, key LIMIT %(limit)s + 1
    ) AS page
    WINDOW ordered AS (ORDER BY pos, key)
) AS measured
WHERE number <= %(limit)s AND before <= %(bytes)s ORDER BY pos, key"""
_LIVE = """
SELECT key, pos, deleted, hash, parent_id, title, metadata, text, vector FROM items
WHERE collection = %s AND key = ANY(%b::text[]) AND NOT deleted"""
_OUTLINES = """
SELECT key, hash, parent_id, metadata FROM items WHERE collection = %s AND key = ANY(%b::text[]) AND NOT deleted"""


def read_page(connection: Connection, collection_id: int, cursor: Cursor, resume: Walk | None, limit: int) -> FeedPage:
    """The next page. Raises as Store.read_feed does."""
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    since = cursor if resume is None else resume.seen
    start = (cursor.position + 1, "") if resume is None else (resume.position, resume.id)  # ids are never empty
    with connection.pipeline():
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        state = connection.execute(_STATE, (collection_id, cursor.position, since.position), binary=True)
        commits = connection.execute(_COMMITS, (collection_id, since.position, MAX_PAGE_COMMITS), binary=True)
        place = {"id": collection_id, "pos": start[0], "key": start[1], "limit": limit, "bytes": MAX_PAGE_BYTES}
        page = connection.execute(_PAGE, place, binary=True)
        connection.execute("COMMIT")
    whole, known, position, tag, at, floor, cursor_tag, seen_tag = state.fetchall()[0]
    if not whole:
        raise restoring()
    if known is None:
        raise unknown(collection_id)
    check_cursor(cursor, cursor_tag.bytes if cursor_tag else None, position, floor)
    if resume is not None:
        check_walk(resume, seen_tag.bytes if seen_tag else None, position, floor)
    head = Cursor(position, tag.bytes) if position else Cursor()
    rows = page.fetchall()
    items = [decode_item(row[:-1]) for row in rows]
    walk = None
    if rows and len(rows) < rows[0][-1]:
        walk = Walk(items[-1].position, items[-1].id, resume.started if resume is not None else head, head)
    seen_commits = [Cursor(pos, commit_tag.bytes) for pos, commit_tag in reversed(commits.fetchall())]
    return FeedPage(items, head, at.astimezone(UTC) if at else None, walk, seen_commits)


def read_live(connection: Connection, collection_id: int, ids: Sequence[str]) -> dict[str, Item]:
    """The live items of these ids."""
    return {row[0]: decode_item(row) for row in _read(connection, collection_id, _LIVE, (ids,))}


def read_outlines(connection: Connection, collection_id: int, ids: Sequence[str]) -> dict[str, Outline]:
    """The outlines of the live items of these ids."""
    return {
        key: Outline(content_hash, parent_id, decode_metadata(metadata))
        for key, content_hash, parent_id, metadata in _read(connection, collection_id, _OUTLINES, (ids,))
    }


def read_ids(connection: Connection, collection_id: int, prefix: str) -> list[str]:
    """The ids of the live items that begin with prefix."""
    end = prefix_end(prefix)
    statement = "SELECT key FROM items WHERE collection = %s AND key >= %s AND NOT deleted"
    if end is None:
        return [row[0] for row in _read(connection, collection_id, statement, (prefix,))]
    return [row[0] for row in _read(connection, collection_id, f"{statement} AND key < %s", (prefix, end))]


def read_heads(connection: Connection) -> dict[int, Cursor]:
    """The head of every collection."""
    rows = connection.execute(_HEADS, binary=True).fetchall()
    if not rows[0][0]:
        raise restoring()
    return {
        collection_id: Cursor(position, tag.bytes) if position is not None else Cursor()
        for _, collection_id, position, tag in rows
        if collection_id is not None
    }


def read_tag(connection: Connection, collection_id: int, position: int) -> bytes | None:
    """The tag of the commit at position; None beyond head. Raises WriteTokenExpiredError below floor."""
    found = connection.execute(
        "SELECT k.floor, c.tag FROM collections k LEFT JOIN commits c ON c.collection = k.id AND c.pos = %s"
        " WHERE k.id = %s",
        (position, collection_id),
        binary=True,
    ).fetchall()
    if not found:
        check_whole(connection)
        raise unknown(collection_id)
    floor, tag = found[0]
    if position < floor:
        raise WriteTokenExpiredError(collection_id, position)
    return tag.bytes if tag else None


def _read(
    connection: Connection, collection_id: int, statement: str, arguments: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    """The rows of a statement about one collection. Raises CollectionNotFoundError."""
    with connection.pipeline():
        known = connection.execute("SELECT 1 FROM collections WHERE id = %s", (collection_id,))
        rows = connection.execute(statement, (collection_id, *arguments), binary=True)
    if not known.fetchall():
        check_whole(connection)
        raise unknown(collection_id)
    return rows.fetchall()
