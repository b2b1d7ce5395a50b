"""Writes and the commit numbers they get: two round trips a transaction, the collection locked between them.

The lock is a statement of its own and the first one: what is read after it is what the writer before has left,
including the requests of a connection that was given up while its transaction was still at work.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from uuid import UUID

import psycopg

from nearshore.errors import NearshoreError, RequestIdReusedError
from nearshore.records import Commit, new_tag
from nearshore.store.base import WriteResult
from nearshore.store.collections import unknown
from nearshore.store.postgres.judging import Judgement, judge
from nearshore.store.postgres.patience import Connection
from nearshore.store.postgres.transactions import Transaction
from nearshore.store.postgres.wholeness import check_whole, restoring
from nearshore.store.rows import Write

# A lock, not an update: each update would leave a dead version of the row, and where an orphan prepared transaction
# or a dump keeps those, every commit gets slower than the one before.
_LOCK = """
SELECT EXISTS (SELECT 1 FROM pg_class WHERE oid = to_regclass('items_feed')) FROM collections
WHERE id = %s FOR NO KEY UPDATE"""
_HEAD = """
SELECT coalesce(max(pos), 0), greatest(max(at), clock_timestamp()) FROM
    (SELECT pos, at FROM commits WHERE collection = %s ORDER BY pos DESC LIMIT 1) AS newest"""
_REQUESTS = """
SELECT r.id, r.digest, r.pos, c.tag, c.at, r.deleted
FROM requests r JOIN commits c ON c.collection = r.collection AND c.pos = r.pos
WHERE r.collection = %s AND r.id = ANY(%b::text[])
    AND EXISTS (SELECT 1 FROM collections k WHERE k.id = r.collection)"""
_TAGS = "SELECT pos, tag FROM commits WHERE collection = %s AND pos = ANY(%b::bigint[])"
_LIVE = "SELECT key, pos FROM items WHERE collection = %s AND key = ANY(%b::text[]) AND NOT deleted"

_COMMIT = "INSERT INTO commits(collection, pos, tag, at) VALUES(%s, %s, %s, %s)"
_UPSERT = """
INSERT INTO items(collection, pos, deleted, key, hash, parent_id, title, metadata, text, vector)
SELECT %s, %s, false, rows.* FROM unnest(%b::text[], %b::bytea[], %b::text[], %b::text[], %b::text[], %b::text[],
    %b::bytea[]) AS rows
ON CONFLICT(collection, key) DO UPDATE SET
    pos = excluded.pos, deleted = false, hash = excluded.hash, parent_id = excluded.parent_id, title = excluded.title,
    metadata = excluded.metadata, text = excluded.text, vector = excluded.vector"""
_DELETE = """
UPDATE items SET pos = %s, deleted = true,
    hash = NULL, parent_id = NULL, title = NULL, metadata = NULL, text = NULL, vector = NULL
WHERE collection = %s AND key = ANY(%b::text[]) AND NOT deleted"""
_REQUEST = """
INSERT INTO requests(collection, pos, id, digest, deleted)
SELECT %s, %s, rows.* FROM unnest(%b::text[], %b::bytea[], %b::bigint[]) AS rows"""

Answer = psycopg.Cursor[tuple[Any, ...]]
_MANY_ROWS = 10_000  # more take this process long enough for PostgreSQL to think that it has stopped
_ROWS_PER_S = 20_000  # judged and sent, at least: ten times as many on a core that does nothing else


def apply_writes(
    transaction: Transaction, collection_id: int, writes: Sequence[Write], first: Sequence[str] = ()
) -> list[WriteResult | NearshoreError]:
    """Commit writes of one collection at one position, judged in their order; first: statements before the lock.

    Raises psycopg.Error and CommitUnknownError.
    """
    with ExitStack() as pipeline:
        found = _lock_and_read(transaction, pipeline, collection_id, writes, first)
        locked = found.locked.fetchall()
        if not locked:
            check_whole(transaction.connection)
            return [unknown(collection_id) for _ in writes]
        if not locked[0][0]:
            raise restoring()
        position, at = found.head.fetchall()[0]
        commit = Commit(collection_id, position + 1, new_tag(), at.astimezone(UTC))
        known = {row[0]: _decode(collection_id, row) for row in _rows(found.requests)}
        history = {pos: tag.bytes for pos, tag in _rows(found.tags)}
        judgement = judge(writes, commit, known, history, dict(_rows(found.live)))
        if any(isinstance(result, WriteResult) for result in judgement.results):
            # A repetition is committed as well: the lock has written to the log, so its COMMIT waits until the disk and
            # a synchronous standby have what the first call wrote, which may have become visible without that.
            with transaction.commit(pipeline):
                if judgement.writes:
                    _write(transaction.connection, commit, judgement)
        return judgement.results


@dataclass(frozen=True, slots=True)
class _Found:
    """What the first round trip reads; None where there was nothing to ask."""

    locked: Answer
    head: Answer
    requests: Answer | None
    tags: Answer | None
    live: Answer | None


def _lock_and_read(
    transaction: Transaction, pipeline: ExitStack, collection_id: int, writes: Sequence[Write], first: Sequence[str]
) -> _Found:
    """Begin, lock the collection and read what the writes are judged by, in a pipeline that stays open.

    Left instead of synced, psycopg would send a Flush behind the Sync; having read that, PostgreSQL (15, and others) no
    longer watches how long the session is idle, and a process that is stopped here keeps its lock until it goes on.
    """
    execute = transaction.connection.execute
    ids = sorted({write.request_id for write in writes if write.request_id})
    bases = sorted({write.basis.position for write in writes if write.basis is not None})
    deletes = sorted({row[0] for write in writes for row in write.rows.deletes})
    opened = pipeline.enter_context(transaction.connection.pipeline())
    transaction.begin()
    for statement in (*first, *_patience(sum(len(write.rows) for write in writes))):
        execute(statement)
    found = _Found(
        execute(_LOCK, (collection_id,)),
        execute(_HEAD, (collection_id,), binary=True),
        execute(_REQUESTS, (collection_id, ids), binary=True) if ids else None,
        execute(_TAGS, (collection_id, bases), binary=True) if bases else None,
        execute(_LIVE, (collection_id, deletes), binary=True) if deletes else None,
    )
    opened.sync()
    return found


def _patience(rows: int) -> Sequence[str]:
    """Lets the session be idle for as long as this process may be busy with so many rows. Few: see connections."""
    if rows <= _MANY_ROWS:
        return ()
    return (f"SET LOCAL idle_in_transaction_session_timeout = '{3 + rows // _ROWS_PER_S}s'",)


def _rows(answer: Answer | None) -> list[tuple[Any, ...]]:
    return answer.fetchall() if answer is not None else []


def find_request(connection: Connection, collection_id: int, request_id: str, digest: bytes) -> WriteResult | None:
    """What this request id did before, if it did. Raises RequestIdReusedError when its digest was another."""
    if not request_id:
        return None
    found = connection.execute(_REQUESTS, (collection_id, [request_id]), binary=True).fetchall()
    if not found:
        return None
    known_digest, result = _decode(collection_id, found[0])
    if known_digest != digest:
        raise RequestIdReusedError(request_id)
    return result


def _write(connection: Connection, commit: Commit, judgement: Judgement) -> None:
    """Send what the judgement says; nothing is waited for.

    The rows first, which take longest: PostgreSQL watches how long we are idle only until it has the first statement.
    """
    place = (commit.collection_id, commit.position)
    if judgement.upserts:
        columns = [list(column) for column in zip(*judgement.upserts.values(), strict=True)]
        connection.execute(_UPSERT, (*place, *columns))
    if judgement.tombstones:
        connection.execute(_DELETE, (commit.position, commit.collection_id, sorted(judgement.tombstones)))
    if judgement.requests:
        columns = [list(column) for column in zip(*judgement.requests, strict=True)]
        connection.execute(_REQUEST, (*place, *columns))
    connection.execute(_COMMIT, (*place, UUID(bytes=commit.tag), commit.at))


def _decode(collection_id: int, row: Sequence[Any]) -> tuple[bytes, WriteResult]:
    _, digest, position, tag, at, deleted = row
    return digest, WriteResult(Commit(collection_id, position, tag.bytes, at.astimezone(UTC)), deleted)
