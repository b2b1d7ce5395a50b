"""Writes and the commit numbers they get, always within an open transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime

from nearshore.errors import CallerError, NearshoreError, RequestIdReusedError
from nearshore.records import Commit, new_tag
from nearshore.store.base import WriteResult
from nearshore.store.collections import unknown
from nearshore.store.history import check_basis
from nearshore.store.rows import Write, from_microseconds, to_microseconds

_UPSERT = """
INSERT INTO items(collection, pos, deleted, key, hash, parent_id, title, metadata, text, vector)
VALUES(?, ?, 0, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(collection, key) DO UPDATE SET
    pos = excluded.pos, deleted = 0, hash = excluded.hash, parent_id = excluded.parent_id, title = excluded.title,
    metadata = excluded.metadata, text = excluded.text, vector = excluded.vector"""
_DELETE = """
UPDATE items SET pos = ?, deleted = 1,
    hash = NULL, parent_id = NULL, title = NULL, metadata = NULL, text = NULL, vector = NULL
WHERE collection = ? AND key = ? AND deleted = 0 AND pos <= ?"""
_TAG = "SELECT tag FROM commits WHERE collection = ? AND pos = ?"
_REQUEST = """
SELECT r.digest, r.pos, c.tag, c.at, r.deleted
FROM requests r
JOIN commits c ON c.collection = r.collection AND c.pos = r.pos
JOIN collections k ON k.id = r.collection
WHERE r.collection = ? AND r.id = ?"""


def apply_writes(connection: sqlite3.Connection, writes: Sequence[Write]) -> list[WriteResult | NearshoreError]:
    """Apply writes in order; those of one collection share one commit.

    A write whose collection is gone, or whose request id was used for another content, gets that error as its result;
    the others are not touched by it.
    """
    now_us = to_microseconds(datetime.now(UTC))
    commits: dict[int, Commit] = {}
    results: list[WriteResult | NearshoreError] = []
    for write in writes:
        try:
            # A repetition inside one group finds the row of the first.
            result = find_request(connection, write.collection_id, write.request_id, write.request_digest)
            if result is None:
                _check_basis(connection, write)
                if write.collection_id not in commits:
                    commits[write.collection_id] = _advance(connection, write.collection_id, now_us)
                result = _apply(connection, write, commits[write.collection_id])
            results.append(result)
        except CallerError as error:
            results.append(error)
    return results


def find_request(
    connection: sqlite3.Connection, collection_id: int, request_id: str, digest: bytes
) -> WriteResult | None:
    """What this request id did before, if it did. Raises RequestIdReusedError when its digest was another."""
    if not request_id:
        return None
    found = connection.execute(_REQUEST, (collection_id, request_id)).fetchall()
    if not found:
        return None
    known_digest, position, tag, at_us, deleted = found[0]
    if known_digest != digest:
        raise RequestIdReusedError(request_id)
    return WriteResult(Commit(collection_id, position, tag, from_microseconds(at_us)), deleted)


def _check_basis(connection: sqlite3.Connection, write: Write) -> None:
    """Raise HistoryChangedError unless the store has the commit that the write was decided on."""
    if write.basis is not None:
        found = connection.execute(_TAG, (write.collection_id, write.basis.position)).fetchall()
        check_basis(write.basis, found[0][0] if found else None)


def _advance(connection: sqlite3.Connection, collection_id: int, now_us: int) -> Commit:
    """Take the collection's next position; its commit times never go back, whatever the clock does."""
    advanced = connection.execute(
        "UPDATE collections SET head = head + 1, head_at = max(head_at, ?) WHERE id = ? RETURNING head, head_at",
        (now_us, collection_id),
    ).fetchall()
    if not advanced:
        raise unknown(collection_id)
    position, at_us = advanced[0]
    commit = Commit(collection_id, position, new_tag(), from_microseconds(at_us))
    connection.execute(
        "INSERT INTO commits(collection, pos, tag, at) VALUES(?, ?, ?, ?)", (collection_id, position, commit.tag, at_us)
    )
    return commit


def _apply(connection: sqlite3.Connection, write: Write, commit: Commit) -> WriteResult:
    """Write the rows at commit's position."""
    key = (commit.collection_id, commit.position)
    if write.rows.upserts:
        connection.executemany(_UPSERT, [key + row for row in write.rows.upserts])
    deleted = 0
    if write.rows.deletes:
        parameters = [(commit.position, commit.collection_id, *row) for row in write.rows.deletes]
        deleted = connection.executemany(_DELETE, parameters).rowcount
    if write.request_id:
        connection.execute(
            "INSERT INTO requests(collection, id, digest, pos, deleted) VALUES(?, ?, ?, ?, ?)",
            (commit.collection_id, write.request_id, write.request_digest, commit.position, deleted),
        )
    return WriteResult(commit, deleted)
