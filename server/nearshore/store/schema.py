"""The SQLite file: how it is opened, what it holds, and how older versions of it are brought up to date."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from nearshore.errors import FULL_DISK, OUT_OF_HANDLES, NearshoreError, OutOfHandlesError, StorageFullError
from nearshore.store.errors import DataFolderReadOnlyError, StoreFormatError
from nearshore.store.failures import translated

FILE_NAME = "store.sqlite"
APPLICATION_ID = 0x6E736872  # "nshr", in the file's header: tells our files from everybody else's
PAGE_SIZE_BYTES = 8192  # measured, see docs/decisions/0002
SYNCHRONOUS = "FULL"  # one fsync of the WAL a commit; NORMAL loses acknowledged writes in a power cut
BUSY_TIMEOUT_MS = 5_000

_FIRST = (
    # AUTOINCREMENT: the id of a deleted collection never comes back, so its tokens and cursors stay recognisable.
    """CREATE TABLE collections(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
        head INTEGER NOT NULL DEFAULT 0, head_at INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0,
        dimensions INTEGER NOT NULL, metric TEXT NOT NULL, index_kind TEXT NOT NULL,
        model TEXT NOT NULL, fingerprint TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT""",
    """CREATE TABLE commits(
        collection INTEGER NOT NULL, pos INTEGER NOT NULL, tag BLOB NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY(collection, pos)) STRICT, WITHOUT ROWID""",
    # A rowid table: with rows this large, a table ordered by key would copy rows at every page split.
    """CREATE TABLE items(
        row INTEGER PRIMARY KEY, collection INTEGER NOT NULL, key TEXT NOT NULL, pos INTEGER NOT NULL,
        deleted INTEGER NOT NULL, hash BLOB, parent_id TEXT, title TEXT, metadata TEXT, text TEXT, vector BLOB,
        UNIQUE(collection, key)) STRICT""",
    "CREATE INDEX items_feed ON items(collection, pos, key)",
    "CREATE INDEX items_tombstones ON items(collection, pos) WHERE deleted = 1",
    """CREATE TABLE requests(
        collection INTEGER NOT NULL, id TEXT NOT NULL, digest BLOB NOT NULL, pos INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        PRIMARY KEY(collection, id)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX requests_by_position ON requests(collection, pos)",
    # Deleted collections whose rows are still to be removed.
    "CREATE TABLE purges(collection INTEGER PRIMARY KEY) STRICT",
)
MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
"""Statements that lead from version n to n + 1, at index n. Append only: files of every version are out there."""


def open_for_writing(file: Path) -> sqlite3.Connection:
    """Open or create the store file, bring it to the newest version, and return its only writing connection.

    Raises DataFolderReadOnlyError, StorageFullError, CorruptionError, UnavailableError, and StoreFormatError for a
    file that is not a store or that a newer version of nearshore wrote.
    """
    make_folder(file.parent)
    with translated(file, "opening it"):
        connection = _connect(f"{file.absolute().as_uri()}?mode=rwc")
        try:
            _prepare(connection, file)
        except BaseException:
            connection.close()
            raise
    sync_folder(file.parent)
    return connection


def open_for_reading(file: Path) -> sqlite3.Connection:
    """A read-only connection, usable from any one thread at a time. Raises what open_for_writing does."""
    with translated(file, "opening it to read"):
        return _connect(f"{file.absolute().as_uri()}?mode=ro")


def make_folder(folder: Path) -> None:
    """Create the data folder, mode 0700, if it is not there. Raises what folder_error gives."""
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(folder.parent)
    except OSError as error:
        raise folder_error(folder, error, "creating") from error


def folder_error(folder: Path, error: OSError, doing: str) -> NearshoreError:
    """What keeps the data folder from being made or opened: DataFolderReadOnly-, StorageFull- or OutOfHandlesError."""
    if error.errno in FULL_DISK:
        return StorageFullError(f"{doing} {folder}")
    if error.errno in OUT_OF_HANDLES:
        return OutOfHandlesError(f"{doing} the data folder {folder}")
    detail = error.strerror or str(error)
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if os.path.lexists(there) and not there.is_dir():
        return DataFolderReadOnlyError(str(folder), f"{there} is not a folder", "Move that away")
    if there != folder:
        remedy = f"Make {there} writable for the user that runs nearshore"
        return DataFolderReadOnlyError(str(folder), f"it cannot be made in {there} ({detail})", remedy)
    return DataFolderReadOnlyError(str(folder), detail)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: a synced file whose name is lost in a power cut is lost too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    if _is_new(connection, file):
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # can only be chosen now; lets the file shrink
    # Checkpoints are the writer thread's, after it has answered its callers; SQLite's own would delay the answers.
    for pragma in (
        "journal_mode = WAL",
        f"synchronous = {SYNCHRONOUS}",
        "wal_autocheckpoint = 0",
        "cache_size = -65536",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    _migrate(connection)


def _is_new(connection: sqlite3.Connection, file: Path) -> bool:
    """Whether the file is empty. Raises StoreFormatError for another program's file or a newer version."""
    application = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application == 0 and version == 0 and tables == 0:
        return True
    if application != APPLICATION_ID:
        raise StoreFormatError(
            f"{file} is an SQLite file of another program.", "Choose another data_dir, or move that file away."
        )
    if version > len(MIGRATIONS):
        raise StoreFormatError(
            f"{file} has schema version {version}; this nearshore knows versions up to {len(MIGRATIONS)}.",
            "Run the version of nearshore that wrote it, or a later one.",
            found=version,
            known=len(MIGRATIONS),
        )
    return False


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing migrations, each in one transaction; also proves that the file can be written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(_pragma(connection, "user_version"), len(MIGRATIONS)):
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
