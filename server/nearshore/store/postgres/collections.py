"""Collections as rows: made, found, listed and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from nearshore.errors import CollectionExistsError
from nearshore.records import Collection, CollectionSpec, IndexKind, Metric
from nearshore.store.collections import unknown
from nearshore.store.postgres.patience import Connection
from nearshore.store.postgres.wholeness import check_whole

_SELECT = "SELECT id, name, dimensions, metric, index_kind, model, fingerprint, created_at FROM collections"
# Milliseconds since 1970 and 20 random bits: such an id grows, fits into 63 bits, and no restored backup, fail-over or
# logical copy makes it come back for another collection.
_CREATE = """
INSERT INTO collections(id, name, dimensions, metric, index_kind, model, fingerprint, created_at)
VALUES((floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint << 20) | floor(random() * 1048576)::bigint,
    %s, %s, %s, %s, %s, %s, clock_timestamp())
ON CONFLICT(name) DO NOTHING
RETURNING id, name, dimensions, metric, index_kind, model, fingerprint, created_at"""


def create(connection: Connection, spec: CollectionSpec) -> Collection:
    """Insert a collection, within an open transaction. Raises CollectionExistsError."""
    check_whole(connection)  # before a restore ends, the name may still come, and so may the index that finds it
    values = (spec.name, spec.dimensions, spec.metric.value, spec.index_kind.value, spec.model, spec.fingerprint)
    inserted = connection.execute(_CREATE, values, binary=True).fetchall()
    if not inserted:
        raise CollectionExistsError(spec.name)
    return _decode(inserted[0])


def find(connection: Connection, name: str) -> Collection | None:
    """The collection of that name."""
    found = connection.execute(f"{_SELECT} WHERE name = %s", (name,), binary=True).fetchall()
    if not found:
        check_whole(connection)
    return _decode(found[0]) if found else None


def require(connection: Connection, collection_id: int) -> Collection:
    """The collection of that id. Raises CollectionNotFoundError."""
    found = connection.execute(f"{_SELECT} WHERE id = %s", (collection_id,), binary=True).fetchall()
    if not found:
        check_whole(connection)
        raise unknown(collection_id)
    return _decode(found[0])


def list_all(connection: Connection) -> list[Collection]:
    """All collections, by name."""
    check_whole(connection)  # before the others are read: it may become whole in between
    rows = connection.execute(f"{_SELECT} ORDER BY name", binary=True).fetchall()
    return [_decode(row) for row in rows]


def delete(connection: Connection, collection_id: int) -> None:
    """Forget a collection, within an open transaction; housekeeping.purge removes its rows later.

    Raises CollectionNotFoundError.
    """
    if not connection.execute("DELETE FROM collections WHERE id = %s", (collection_id,)).rowcount:
        check_whole(connection)
        raise unknown(collection_id)
    connection.execute("INSERT INTO purges(collection) VALUES(%s)", (collection_id,))


def _decode(row: Sequence[Any]) -> Collection:
    collection_id, name, dimensions, metric, index_kind, model, fingerprint, created_at = row
    spec = CollectionSpec(name, dimensions, Metric(metric), IndexKind(index_kind), model, fingerprint)
    return Collection(collection_id, spec, created_at.astimezone(UTC))
