"""What an indexing run compares its input with, always within an open transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from nearshore.records import Outline
from nearshore.store import collections
from nearshore.store.metadata import decode_metadata
from nearshore.store.rows import prefix_end

_OUTLINES = """
SELECT key, hash, parent_id, metadata FROM items
WHERE collection = ? AND key IN (SELECT value FROM json_each(?)) AND deleted = 0"""
_IDS = "SELECT key FROM items WHERE collection = ? AND deleted = 0 AND key >= ?"


def read_outlines(connection: sqlite3.Connection, collection_id: int, ids: Sequence[str]) -> dict[str, Outline]:
    """The outlines of the live items of these ids."""
    collections.require(connection, collection_id)
    rows = connection.execute(_OUTLINES, (collection_id, json.dumps(ids))).fetchall()
    return {key: Outline(digest, parent_id, decode_metadata(metadata)) for key, digest, parent_id, metadata in rows}


def read_ids(connection: sqlite3.Connection, collection_id: int, prefix: str) -> list[str]:
    """The ids of the live items whose ids begin with prefix."""
    collections.require(connection, collection_id)
    end = prefix_end(prefix)
    if end is None:
        rows = connection.execute(_IDS, (collection_id, prefix))
    else:
        rows = connection.execute(f"{_IDS} AND key < ?", (collection_id, prefix, end))
    return [key for (key,) in rows.fetchall()]
