"""The tables, and how older versions of them are brought up to date while processes of the release before still run.

Expand and contract: release N only adds what release N-1 does not notice, so that both run side by side during an
upgrade, and N-1 again after a rollback. What N no longer needs, release N+1 removes. Each migration says which is the
lowest version that still runs on its result (`compatible`); a process runs when its own version is at least that.

To expand is to add tables, indexes, and columns that may be null or have a default. A column that changes its type does
not expand: plans that running processes have made fail on it. While a statement is at work, those who need what it
locks wait, and are refused after a few seconds: an index on a large table belongs into a quiet hour's upgrade.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import errors

from nearshore.errors import NearshoreError
from nearshore.store.errors import StoreFormatError, StoreUnavailableError
from nearshore.store.postgres.patience import Connection

_LOCK_ID = 0x6E736872  # "nshr"
_TURN_TIMEOUT = "60s"  # another process may be at a long migration
# For a table that somebody reads for hours, a dump say. Whoever comes after queues behind a migration that waits, so it
# gives up before they do, and its process tries again.
_LOCK_TIMEOUT = "1s"


@dataclass(frozen=True, slots=True)
class Migration:
    """Statements that lead to the next version, in one transaction."""

    compatible: int  # the lowest version that runs on the result
    statements: tuple[str, ...]


_FIRST = Migration(
    1,
    (
        # No sequence: it goes back with a restored backup, and an id must never name another collection. Key order is
        # that of code points wherever the database runs.
        """CREATE TABLE collections(
            id bigint PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE, floor bigint NOT NULL DEFAULT 0,
            dimensions integer NOT NULL, metric text NOT NULL, index_kind text NOT NULL,
            model text NOT NULL, fingerprint text NOT NULL, created_at timestamptz NOT NULL)""",
        # The head of a collection is its highest pos.
        """CREATE TABLE commits(
            collection bigint, pos bigint, tag uuid NOT NULL, at timestamptz NOT NULL,
            PRIMARY KEY(collection, pos))""",
        # Floats do not compress, and a row read as a whole is faster in one piece: measured, see docs/decisions/0005.
        """CREATE TABLE items(
            collection bigint, key text COLLATE "C", pos bigint NOT NULL, deleted boolean NOT NULL, hash bytea,
            parent_id text, title text, metadata text, text text, vector bytea,
            PRIMARY KEY(collection, key)) WITH (toast_tuple_target = 4080)""",
        "ALTER TABLE items ALTER COLUMN vector SET STORAGE EXTERNAL",
        "CREATE INDEX items_feed ON items(collection, pos, key)",
        "CREATE INDEX items_tombstones ON items(collection, pos) WHERE deleted",
        """CREATE TABLE requests(
            collection bigint, id text COLLATE "C", digest bytea NOT NULL, pos bigint NOT NULL,
            deleted bigint NOT NULL, PRIMARY KEY(collection, id))""",
        "CREATE INDEX requests_by_position ON requests(collection, pos)",
        # Deleted collections whose rows are still to be removed.
        "CREATE TABLE purges(collection bigint PRIMARY KEY)",
    ),
)
MIGRATIONS: tuple[Migration, ...] = (_FIRST,)
"""What leads from version n to n + 1, at index n. Append only: databases of every version are out there."""


def migrate(connection: Connection, place: str) -> None:
    """Bring the database to this release's version, or find that it is at a later, compatible one.

    Safe when many processes start together. Raises StoreFormatError, StoreUnavailableError (a restore is under way) and
    psycopg.Error.
    """
    version, compatible = _read_version(connection)
    if version < len(MIGRATIONS):
        _check_encoding(connection, place)
        version, compatible = _apply(connection, place)
    if compatible > len(MIGRATIONS):
        raise StoreFormatError(
            f"PostgreSQL at {place} has schema version {version}, which needs a nearshore that knows version "
            f"{compatible}; this one knows versions up to {len(MIGRATIONS)}.",
            "Run the release of nearshore that wrote it, or a later one.",
            found=version,
            known=len(MIGRATIONS),
        )


def _apply(connection: Connection, place: str) -> tuple[int, int]:
    """Apply the missing migrations. The lock comes first of all: even CREATE IF NOT EXISTS fails in a race."""
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{_TURN_TIMEOUT}'")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_ID,))
            connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            version, compatible = _read_version(connection)
            if version == 0:
                connection.execute("CREATE TABLE nearshore_schema(version integer, compatible integer)")
                connection.execute("INSERT INTO nearshore_schema VALUES(0, 0)")
            for migration in MIGRATIONS[version:]:
                for statement in migration.statements:
                    connection.execute(statement)
                version, compatible = version + 1, migration.compatible
            connection.execute("UPDATE nearshore_schema SET version = %s, compatible = %s", (version, compatible))
    except errors.DuplicateTable as error:
        raise _foreign(place, error) from error
    return version, compatible


def _read_version(connection: Connection) -> tuple[int, int]:
    """The version that the database is at, and the lowest that runs on it; 0 for one without our tables.

    Raises StoreUnavailableError while pg_restore fills the tables: it makes all of them first, and this one is nearly
    the last to get its row.
    """
    # Not to_regclass: within a transaction it may remember that there was no such table before the lock was waited for.
    found = (
        "SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'nearshore_schema' AND pg_catalog.pg_table_is_visible(oid)"
    )
    if not connection.execute(found).fetchall():
        return 0, 0
    rows = connection.execute("SELECT version, compatible FROM nearshore_schema").fetchall()
    if not rows:  # a migration commits table and row together
        raise StoreUnavailableError(
            "The database is being restored: nearshore_schema has no row yet.",
            "Wait for the end of pg_restore (--single-transaction shows others all or nothing). If none runs, it was "
            "broken off: restore again, into an empty database.",
        )
    return rows[0][0], rows[0][1]


def _check_encoding(connection: Connection, place: str) -> None:
    encoding = connection.execute("SHOW server_encoding").fetchall()[0][0]
    if encoding != "UTF8":
        raise StoreFormatError(
            f"The database at {place} has the encoding {encoding}, which cannot hold every text.",
            "Create one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and name it in store.url.",
            encoding=encoding,
        )


def _foreign(place: str, error: psycopg.Error) -> NearshoreError:
    return StoreFormatError(
        f"The database at {place} holds tables of another program ({str(error).splitlines()[0]}).",
        "Give nearshore a database of its own, and name it in store.url.",
    )
