"""What is SQLite's own: the file, its damage, its disk, its WAL, and the death of the process."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest

from nearshore.errors import CommitUnknownError, CorruptionError, NearshoreError, OutOfHandlesError
from nearshore.records import Delete
from nearshore.store import failures, schema, session, sqlite, writer
from nearshore.store.base import Cursor
from nearshore.store.errors import DataFolderReadOnlyError, StoreFormatError, StoreUnavailableError
from nearshore.store.schema import FILE_NAME
from nearshore.store.sqlite import SqliteStore
from tests.stores import SPEC, SqliteFactory, upsert, walk

WAIT_S = 20.0  # only a bug reaches it


@pytest.fixture
def factory(tmp_path: Path) -> SqliteFactory:
    return SqliteFactory(tmp_path)


@pytest.fixture
def file(factory: SqliteFactory) -> Path:
    """The file of a closed store that holds 2,000 documents."""
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert(str(number), "text " * 50) for number in range(2_000)]).result()
    store.close()
    return factory.folder / FILE_NAME


def open_at(folder: Path, on_death: Callable[[BaseException], None] = lambda _: None) -> SqliteStore:
    return SqliteStore.open(
        folder,
        max_transaction_rows=1_000,
        max_transaction_bytes=1 << 20,
        max_queued_bytes=1 << 20,
        on_death=on_death,
    )


# Opening


def test_a_file_of_another_program_is_refused(factory: SqliteFactory) -> None:
    """An SQLite file with foreign tables is left as it was."""
    factory.folder.mkdir()
    with sqlite3.connect(factory.folder / FILE_NAME) as connection:
        connection.execute("CREATE TABLE songs(title)")
    connection.close()
    before = (factory.folder / FILE_NAME).read_bytes()
    with pytest.raises(StoreFormatError, match="another program"):
        factory.open()
    assert (factory.folder / FILE_NAME).read_bytes() == before


def test_a_newer_schema_is_refused(factory: SqliteFactory, file: Path) -> None:
    """A file of a later version names both versions and is not touched."""
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreFormatError, match="version 99") as refused:
        factory.open()
    assert refused.value.metadata == {"found": "99", "known": str(len(schema.MIGRATIONS))}


def test_an_older_schema_is_brought_up_to_date(
    factory: SqliteFactory, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing migrations run once, in order, and keep the data; one that fails leaves the old version."""
    failing = (*schema.MIGRATIONS, ("CREATE TABLE extra(x)", "INSERT INTO missing VALUES(1)"))
    monkeypatch.setattr(schema, "MIGRATIONS", failing)
    with pytest.raises(NearshoreError):
        factory.open()
    monkeypatch.setattr(schema, "MIGRATIONS", (*failing[:-1], ("CREATE TABLE extra(x)",)))
    for _ in range(2):
        store = factory.open()
        assert len(walk(store, store.get_collection(SPEC.name).id)[0]) == 2_000
        store.close()
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(failing),)
    connection.close()


def test_garbage_is_reported_as_damage(factory: SqliteFactory, file: Path) -> None:
    """A file that is no SQLite file at all raises STORE_CORRUPT with what to do."""
    file.write_bytes(b"garbage " * 10_000)
    with pytest.raises(CorruptionError, match="restore") as refused:
        factory.open()
    assert refused.value.reason == "STORE_CORRUPT"


def test_a_file_cut_short_is_reported_as_damage(factory: SqliteFactory, file: Path) -> None:
    """A truncated file is refused at open, not at the first read that misses a page."""
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(CorruptionError, match="damaged"):
        factory.open()


def test_a_damaged_page_is_reported_as_damage(factory: SqliteFactory, file: Path) -> None:
    """Pages overwritten behind the store's back raise STORE_CORRUPT where they are met, never a wrong row."""
    with file.open("r+b") as raw:
        raw.seek(schema.PAGE_SIZE_BYTES * 20)
        raw.write(b"\xa5" * (file.stat().st_size - schema.PAGE_SIZE_BYTES * 20))
    store = factory.open()
    with pytest.raises(CorruptionError):
        walk(store, 1)
    store.close()


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder that this process may read and enter, but not write, even when it runs as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        folder.mkdir(mode=0o755)
        Path(name).chmod(0o755)
        user = os.geteuid()
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(65_534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def test_a_read_only_folder_is_named(factory: SqliteFactory, file: Path) -> None:
    """Neither a new store, nor an existing one, nor a new folder opens where nothing can be written."""
    content = file.read_bytes()
    with as_nobody() as folder:
        for place in (folder, folder / "below"):
            with pytest.raises(DataFolderReadOnlyError) as refused:
                open_at(place)
            assert refused.value.reason == "DATA_FOLDER_READ_ONLY"
            assert str(place) in str(refused.value)
        os.seteuid(os.getuid())
        (folder / FILE_NAME).write_bytes(content)
        (folder / FILE_NAME).chmod(0o444)
        if os.getuid() == 0:
            os.seteuid(65_534)
        with pytest.raises(DataFolderReadOnlyError):
            open_at(folder)


# Failing writes


@contextmanager
def no_file_may_grow(beyond_bytes: int) -> Iterator[None]:
    """Let writes beyond this size of any file fail with an I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (beyond_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_failing_disk_refuses_writes_but_not_reads(factory: SqliteFactory, file: Path) -> None:
    """While writing fails, callers get errors and reads go on; afterwards writes work and no refused one appears."""
    store = factory.open()
    kept = store.write(1, [upsert("kept")]).result().commit
    with no_file_may_grow(file.with_name(f"{FILE_NAME}-wal").stat().st_size):
        for key in ("lost", "lost too"):
            with pytest.raises(NearshoreError) as refused:
                store.write(1, [upsert(key, "x" * 50_000), Delete("kept")], key).result()
            assert refused.value.reason in ("STORE_UNAVAILABLE", "COMMIT_OUTCOME_UNKNOWN", "STORAGE_FULL")
        assert set(store.get_items(1, ["kept", "lost"])) == {"kept"}
        assert store.heads()[1] == Cursor(kept.position, kept.tag)
    assert store.write(1, [upsert("after")]).result().commit.position == kept.position + 1
    store.close()
    store = factory.open()
    assert set(store.get_items(1, ["kept", "lost", "lost too", "after"])) == {"kept", "after"}
    store.close()


def test_an_io_error_at_commit_leaves_the_outcome_unknown(
    factory: SqliteFactory, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little space free, too: only SQLite's own word for a full disk says that nothing was written."""
    monkeypatch.setattr(failures, "FULL_BELOW_BYTES", 1 << 62)
    store = factory.open()
    store.write(1, [upsert("kept")]).result()
    beyond_bytes = file.with_name(f"{FILE_NAME}-wal").stat().st_size
    with no_file_may_grow(beyond_bytes), pytest.raises(CommitUnknownError):
        store.write(1, [upsert("unknown", "x" * 50_000)]).result()
    store.close()


def test_out_of_file_handles_the_store_says_so(factory: SqliteFactory) -> None:
    """It is no read-only folder, and passes."""
    store = factory.open()
    store.create_collection(SPEC)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OutOfHandlesError, match="too many open files"):
            store.heads()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(store.heads()) == 1
    store.close()


class Told:
    """A connection that keeps what it was told to do, and whose checkpoints fail."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.statements: list[str] = []
        self._connection = connection

    def execute(self, statement: str, *arguments: Any) -> Any:
        self.statements.append(statement)
        if "wal_checkpoint" in statement:
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_a_failed_checkpoint_leaves_the_writer_as_patient_as_before(
    factory: SqliteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint waits less for others than a write does; when it fails, writes wait as long as ever."""
    opened: list[Told] = []

    def open_told(file: Path) -> Any:
        opened.append(Told(schema.open_for_writing(file)))
        return opened[-1]

    monkeypatch.setattr(session, "MAX_WAL_BYTES", 1)
    monkeypatch.setattr(sqlite, "open_for_writing", open_told)
    store = factory.open()
    store.create_collection(SPEC)
    store.close()
    (told,) = opened
    assert any("wal_checkpoint" in statement for statement in told.statements)
    patience = [statement for statement in told.statements if "busy_timeout" in statement]
    assert patience[-1] == f"PRAGMA busy_timeout = {schema.BUSY_TIMEOUT_MS}"


class Unwritable:
    """A log that cannot be written."""

    def exception(self, *_: object, **__: object) -> None:
        raise BrokenPipeError

    def error(self, *_: object, **__: object) -> None:
        """The last one, after everybody was told."""


@pytest.mark.parametrize("cause", [SystemExit, BrokenPipeError])
def test_a_dead_writer_is_told_and_nobody_waits_for_it(
    factory: SqliteFactory, cause: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the writing thread reaches on_death, and what was queued or comes later is refused, not kept."""
    monkeypatch.setattr(writer, "_log", Unwritable())
    entered, leave, died, deaths = threading.Event(), threading.Event(), threading.Event(), list[BaseException]()

    def on_death(error: BaseException) -> None:
        deaths.append(error)
        died.set()

    def fail(_: int) -> None:
        entered.set()
        leave.wait()
        raise cause

    store = open_at(factory.folder, on_death)
    collection_id = store.create_collection(SPEC).id
    store.watch(fail)
    assert store.write(collection_id, [upsert("kept")]).result().commit.position == 1
    assert entered.wait(WAIT_S)
    queued = store.write(collection_id, [upsert("queued")])
    leave.set()
    assert died.wait(WAIT_S)
    assert isinstance(deaths[0], cause)
    later = store.write(collection_id, [upsert("later")])
    for write in (queued, later):
        with pytest.raises(StoreUnavailableError, match="died"):
            write.result(WAIT_S)
    with pytest.raises(StoreUnavailableError, match="died"):
        store.delete_collection(collection_id)
    assert set(store.get_items(collection_id, ["kept", "queued", "later"])) == {"kept"}
    store.close()


# The size of things


def test_the_wal_is_truncated_while_readers_read(factory: SqliteFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bulk load with a busy reader beside it leaves the WAL near its bound, not as large as the load."""
    monkeypatch.setattr(session, "MAX_WAL_BYTES", 1 << 20)
    monkeypatch.setattr(session, "CHECKPOINT_RETRY_BYTES", 1 << 20)
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    wal = factory.folder / f"{FILE_NAME}-wal"
    largest = 0
    for number in range(60):
        future = store.write(collection_id, [upsert(f"{number}/{n}", "x" * 4_000) for n in range(50)])
        page = store.read_feed(collection_id, Cursor())
        future.result()
        largest = max(largest, wal.stat().st_size)
    assert page.head.position > 50
    assert factory.folder.joinpath(FILE_NAME).stat().st_size > 4 << 20
    assert largest < 4 << 20
    store.close()


def rows_left(file: Path) -> int:
    """Rows of all collections in a closed store's file."""
    connection = sqlite3.connect(file)
    tables = ("items", "commits", "requests", "purges")
    rows = sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
    connection.close()
    return int(rows)


def test_rows_of_a_deleted_collection_are_removed_even_after_a_restart(
    factory: SqliteFactory, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removal goes on where a stop interrupted it, writes get their turns meanwhile, and the file shrinks."""
    full = file.stat().st_size
    monkeypatch.setattr("nearshore.store.housekeeping._MIN_FREE_PAGES", 16)
    monkeypatch.setattr(writer, "PURGE_ROWS", 50)
    store = factory.open()
    store.delete_collection(1)
    other = store.create_collection(SPEC).id
    store.write(other, [upsert("a")]).result()
    store.close()  # does not wait for the removal
    assert rows_left(file) > 10
    for _ in range(40):  # the writer removes some rows after each write, then gives pages back
        store = factory.open()
        for _ in range(100):
            head = store.write(other, [upsert("b")]).result().commit.position
        store.close()
        if file.stat().st_size < full / 2:
            break
    assert rows_left(file) == 2 + head  # two documents and their commits
    assert file.stat().st_size < full / 2


def test_commit_times_never_go_back(factory: SqliteFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the clock is set back, a commit takes the time of the one before it."""

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Yesterday:
            return cls.fromtimestamp(datetime.now(tz).timestamp() - 86_400, tz)

    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    first = store.write(collection_id, []).result().commit
    monkeypatch.setattr("nearshore.store.commits.datetime", Yesterday)
    second = store.write(collection_id, []).result().commit
    assert second.at == first.at
    assert store.read_feed(collection_id, Cursor()).head_at == first.at
    store.close()


# Death


WRITE = """
import sys
from pathlib import Path
from tests.stores import SPEC, SqliteFactory, upsert
store = SqliteFactory(Path(sys.argv[1])).open()
id = store.list_collections()[0].id if store.list_collections() else store.create_collection(SPEC).id
base = store.heads()[id].position
number = 0
while True:
    futures = [store.write(id, [upsert(f"{base}/{number}/{n}")]) for n in range(3)]
    for n, future in enumerate(futures):
        future.result()
        print(f"{base}/{number}/{n}", flush=True)
    number += 1
"""


def test_no_acknowledged_write_is_lost_by_a_kill(factory: SqliteFactory, tmp_path: Path) -> None:
    """Whatever the killed process had acknowledged is there afterwards, in documents and in the feed."""
    acknowledged: set[str] = set()
    for count in (5, 50, 200):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
        ) as process:
            assert process.stdout is not None
            acknowledged.update(process.stdout.readline().strip() for _ in range(count))
            process.kill()
            acknowledged.update(line.strip() for line in process.stdout if line.endswith("\n"))
        store = factory.open()
        found = {item.id for item in walk(store, 1)[0]}
        assert acknowledged <= found
        assert set(store.get_items(1, sorted(acknowledged))) == acknowledged
        store.close()


def test_closing_waits_for_a_slow_disk(factory: SqliteFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it still writes there, nobody gets the folder before it is done."""
    monkeypatch.setattr(writer, "CLOSE_GRACE_S", 0.0)
    monkeypatch.setattr(writer, "INTERRUPT_S", 0.0)
    closing, goes_on, ended = threading.Event(), threading.Event(), threading.Event()
    close = session.SqliteSession.close

    def close_slowly(one: session.SqliteSession) -> None:
        closing.set()
        assert goes_on.wait(WAIT_S)
        close(one)
        ended.set()

    monkeypatch.setattr(session.SqliteSession, "close", close_slowly)
    store = factory.open()
    thread = threading.Thread(target=store.close)
    thread.start()
    assert closing.wait(WAIT_S)
    threading.Timer(0.2, goes_on.set).start()
    thread.join(WAIT_S)
    assert ended.is_set()
