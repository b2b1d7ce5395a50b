"""Collections as rows: made, found, listed and forgotten, always within an open transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from nearshore.errors import CollectionExistsError, CollectionNotFoundError
from nearshore.records import Collection, CollectionSpec, IndexKind, Metric
from nearshore.store.rows import from_microseconds, to_microseconds

_SELECT = "SELECT id, name, dimensions, metric, index_kind, model, fingerprint, created_at FROM collections"


def create(connection: sqlite3.Connection, spec: CollectionSpec) -> Collection:
    """Insert a collection. Raises CollectionExistsError."""
    created_at = datetime.now(UTC)
    values = (spec.name, spec.dimensions, spec.metric.value, spec.index_kind.value, spec.model, spec.fingerprint)
    inserted = connection.execute(
        "INSERT INTO collections(name, dimensions, metric, index_kind, model, fingerprint, created_at)"
        " VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT(name) DO NOTHING RETURNING id",
        (*values, to_microseconds(created_at)),
    ).fetchall()
    if not inserted:
        raise CollectionExistsError(spec.name)
    return Collection(inserted[0][0], spec, created_at)


def find(connection: sqlite3.Connection, name: str) -> Collection:
    """The collection of that name. Raises CollectionNotFoundError."""
    found = connection.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchall()
    if not found:
        raise CollectionNotFoundError(name)
    return _decode(found[0])


def require(connection: sqlite3.Connection, collection_id: int) -> Collection:
    """The collection of that id. Raises CollectionNotFoundError."""
    found = connection.execute(f"{_SELECT} WHERE id = ?", (collection_id,)).fetchall()
    if not found:
        raise unknown(collection_id)
    return _decode(found[0])


def list_all(connection: sqlite3.Connection) -> list[Collection]:
    """All collections, by name."""
    return [_decode(row) for row in connection.execute(f"{_SELECT} ORDER BY name").fetchall()]


def delete(connection: sqlite3.Connection, collection_id: int) -> None:
    """Forget a collection; housekeeping.purge removes its rows later. Raises CollectionNotFoundError."""
    if not connection.execute("DELETE FROM collections WHERE id = ?", (collection_id,)).rowcount:
        raise unknown(collection_id)
    connection.execute("INSERT INTO purges(collection) VALUES(?)", (collection_id,))


def unknown(collection_id: int) -> CollectionNotFoundError:
    """No collection has this id (any more)."""
    return CollectionNotFoundError(f"#{collection_id}")


def _decode(row: Sequence[Any]) -> Collection:
    collection_id, name, dimensions, metric, index_kind, model, fingerprint, created_at = row
    spec = CollectionSpec(name, dimensions, Metric(metric), IndexKind(index_kind), model, fingerprint)
    return Collection(collection_id, spec, from_microseconds(created_at))
