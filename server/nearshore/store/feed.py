"""Reading documents, and the feed: state in the order of (position, id), page by page, each from one transaction.

A row that is written again during a walk moves ahead and is met again later in the same walk, so at the walk's end
the follower has the state at the head that the last page saw.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from nearshore.errors import WriteTokenExpiredError
from nearshore.records import Item
from nearshore.store.base import MAX_PAGE_COMMITS, Cursor, FeedPage, Walk
from nearshore.store.collections import unknown
from nearshore.store.history import check_cursor, check_walk
from nearshore.store.rows import decode_item, from_microseconds

MAX_PAGE_ROWS = 1_000
MAX_PAGE_BYTES = 16 << 20

# The columns of rows.decode_item.
_PAGE = """
SELECT key, pos, deleted, hash, parent_id, title, metadata, text, vector FROM items
WHERE collection = ? AND (pos, key) > (?, ?) ORDER BY pos, key LIMIT ?"""
_LIVE = """
SELECT key, pos, deleted, hash, parent_id, title, metadata, text, vector FROM items
WHERE collection = ? AND deleted = 0 AND key IN (SELECT value FROM json_each(?))"""


def read_page(
    connection: sqlite3.Connection, collection_id: int, cursor: Cursor, resume: Walk | None, limit: int
) -> FeedPage:
    """The next page, within the open read transaction. Raises as Store.read_feed does."""
    head, floor = _head_and_floor(connection, collection_id)
    check_cursor(cursor, _tag(connection, collection_id, cursor.position), head, floor)
    start = (cursor.position + 1, "")  # ids are never empty
    if resume is not None:
        check_walk(resume, _tag(connection, collection_id, resume.seen.position), head, floor)
        start = (resume.position, resume.id)
    items, complete = _read_items(connection, collection_id, start, max(1, min(limit, MAX_PAGE_ROWS)))
    seen, head_at = _head(connection, collection_id, head)
    commits = _commits(connection, collection_id, cursor if resume is None else resume.seen, head)
    if complete:
        return FeedPage(items, seen, head_at, None, commits)
    started = resume.started if resume is not None else seen
    return FeedPage(items, seen, head_at, Walk(items[-1].position, items[-1].id, started, seen), commits)


def read_live(connection: sqlite3.Connection, collection_id: int, ids: Sequence[str]) -> dict[str, Item]:
    """The live items of these ids."""
    _head_and_floor(connection, collection_id)
    rows = connection.execute(_LIVE, (collection_id, json.dumps(ids))).fetchall()
    return {row[0]: decode_item(row) for row in rows}


def read_heads(connection: sqlite3.Connection) -> dict[int, Cursor]:
    """The head of every collection."""
    rows = connection.execute(
        "SELECT k.id, k.head, coalesce(c.tag, x'') FROM collections k"
        " LEFT JOIN commits c ON c.collection = k.id AND c.pos = k.head"
    ).fetchall()
    return {collection_id: Cursor(head, tag) for collection_id, head, tag in rows}


def read_tag(connection: sqlite3.Connection, collection_id: int, position: int) -> bytes | None:
    """The tag of the commit at position; None beyond head. Raises WriteTokenExpiredError below floor."""
    _, floor = _head_and_floor(connection, collection_id)
    if position < floor:
        raise WriteTokenExpiredError(collection_id, position)
    return _tag(connection, collection_id, position)


def _head_and_floor(connection: sqlite3.Connection, collection_id: int) -> tuple[int, int]:
    state = connection.execute("SELECT head, floor FROM collections WHERE id = ?", (collection_id,)).fetchall()
    if not state:
        raise unknown(collection_id)
    return state[0][0], state[0][1]


def _tag(connection: sqlite3.Connection, collection_id: int, position: int) -> bytes | None:
    found = connection.execute(
        "SELECT tag FROM commits WHERE collection = ? AND pos = ?", (collection_id, position)
    ).fetchall()
    return found[0][0] if found else None


def _read_items(
    connection: sqlite3.Connection, collection_id: int, start: tuple[int, str], limit: int
) -> tuple[list[Item], bool]:
    """Items behind start, at most limit and little more than MAX_PAGE_BYTES; and whether these are the last."""
    items: list[Item] = []
    size_bytes = 0
    rows = connection.execute(_PAGE, (collection_id, *start, limit + 1))
    try:
        for row in rows:
            if len(items) == limit or size_bytes > MAX_PAGE_BYTES:
                return items, False
            items.append(decode_item(row))
            size_bytes += sum(len(value) for value in row if isinstance(value, str | bytes))
    finally:
        rows.close()
    return items, True


def _head(connection: sqlite3.Connection, collection_id: int, head: int) -> tuple[Cursor, datetime | None]:
    if head == 0:
        return Cursor(), None
    tag, at_us = connection.execute(
        "SELECT tag, at FROM commits WHERE collection = ? AND pos = ?", (collection_id, head)
    ).fetchall()[0]
    return Cursor(head, tag), from_microseconds(at_us)


def _commits(connection: sqlite3.Connection, collection_id: int, since: Cursor, head: int) -> list[Cursor]:
    """The newest commits behind `since`, by position."""
    rows = connection.execute(
        "SELECT pos, tag FROM commits WHERE collection = ? AND pos > ? ORDER BY pos",
        (collection_id, max(since.position, head - MAX_PAGE_COMMITS)),
    ).fetchall()
    return [Cursor(position, tag) for position, tag in rows]
