"""A real PostgreSQL for tests and benchmarks: a cluster of its own, in a folder of its own, on a free port."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, LiteralString, Self

import psycopg
import pytest
from psycopg import sql

from tests.ports import free_port

START_S = 60.0
ABSENT = "needs PostgreSQL's programs (Debian, Ubuntu: apt-get install postgresql)"
_names = itertools.count(1)


def programs() -> Path | None:
    """The folder of initdb, postgres and pg_ctl, of the newest version that is installed; None where none is."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


class PostgresServer:
    """Starts, stops, kills and restarts one PostgreSQL; fsync is on, as anywhere. Trusts whoever connects locally.

    options: lines for postgresql.conf. The attribute environment holds the variables of the next start.
    copy_of: a folder that pg_basebackup made, instead of a new cluster; port: a fixed one, instead of a free one.
    """

    def __init__(
        self,
        *,
        options: Sequence[str] = (),
        copy_of: Path | None = None,
        port: int = 0,
    ) -> None:
        """Make the cluster; start() starts it."""
        self.folder = Path(tempfile.mkdtemp(prefix="nearshore-postgres-"))
        self.data = self.folder / "data"
        self.port = port or free_port()
        self.environment = dict(os.environ)
        self._user = _unprivileged()
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        if copy_of is None:
            self.run("initdb", "--pgdata", self.data, "--username=postgres", "--auth=trust", "--encoding=UTF8")
        else:
            shutil.move(copy_of, self.data)
        self.configure("listen_addresses = '127.0.0.1'", f"unix_socket_directories = '{self.folder}'", *options)
        self.move_to(self.port)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and remove its folder."""
        self.close()

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of PostgreSQL's programs as the cluster's owner. Returns its output; raises what it complained of."""
        folder = programs()
        assert folder is not None, ABSENT
        # Not subprocess's own user=: that forks for real, and gRPC's handlers then run in a process with many threads.
        group = "" if self._user is None else str(pwd.getpwnam(self._user).pw_gid)
        prefix = ["setpriv", f"--reuid={self._user}", f"--regid={group}", "--clear-groups"] if self._user else []
        done = subprocess.run(
            [*prefix, folder / program, *arguments],
            check=False,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}\n{self.log()[-2000:]}")
        return done.stdout

    def configure(self, *lines: str) -> None:
        """Add lines to postgresql.conf, for the next start; the last of a kind holds."""
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.writelines(f"{line}\n" for line in lines)

    def move_to(self, port: int) -> None:
        """Listen at another port from the next start on."""
        self.port = port
        self.configure(f"port = {port}")

    def make_folder(self, folder: Path) -> None:
        """Make a folder that it may write to."""
        folder.mkdir()
        if self._user is not None:
            shutil.chown(folder, self._user)

    def promote(self) -> None:
        """End the recovery of a standby, which takes writes then."""
        self._control("promote")

    def start(self) -> None:
        """Start it and wait until it answers, after its recovery."""
        give_up = time.monotonic() + START_S
        while True:
            try:
                self._control("start", "--log", self.folder / "log", "--timeout", str(round(START_S)))
            except RuntimeError:
                # What a killed postmaster leaves ends by itself, but holds the shared memory until then.
                if "shared memory block" not in self.log()[-1000:] or time.monotonic() > give_up:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it: "fast" in order, "immediate" as a crash does, without a checkpoint."""
        self._control("stop", "--mode", mode)

    def kill(self) -> None:
        """Kill -9 its first process; the others notice and end."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(0.01)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let no process of it run: it neither answers nor refuses, as on a dead disk."""
        everyone = [self.pid]
        _stop(self.pid)  # first, so that there are no new children
        try:
            for child in _children(self.pid):
                everyone.append(child)
                _stop(child)
            yield
        finally:
            for each in everyone:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)

    def close(self) -> None:
        """Stop it if it runs, and remove everything. Idempotent."""
        if (self.data / "postmaster.pid").exists():
            with contextlib.suppress(RuntimeError):  # it was killed
                self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id of the postmaster, while it runs."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def log(self) -> str:
        """What it wrote to its log."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def url(self, database: str = "postgres") -> str:
        """Where to connect."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A plain connection, each statement a transaction of its own."""
        return psycopg.connect(self.url(database), autocommit=True)

    def create_database(self, copy_of: str = "", url: str = "") -> str:
        """Create an empty database, or a copy of one that nobody is connected to; returns its URL.

        url: where to put it, in place of the database that is there.
        """
        name = database_of(url) if url else f"test_{os.getpid()}_{next(_names)}"
        with self.connect() as connection:
            if url:  # put aside, not dropped: that would wait for a checkpoint of everything
                self._name_in(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,)
                )
                self._name_in(connection, "ALTER DATABASE {} RENAME TO {}", name, f"old_{os.getpid()}_{next(_names)}")
            template = database_of(copy_of) if copy_of else "template1"
            self._name_in(connection, "CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.url(name)

    def _name_in(self, connection: psycopg.Connection, statement: LiteralString, *names: str) -> None:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _control(self, action: str, *arguments: str | Path) -> None:
        self.run("pg_ctl", action, "--silent", "--wait", "--pgdata", self.data, *arguments)


def database_of(url: str) -> str:
    """The name of the database in a URL."""
    return url.rsplit("/", 1)[1]


@contextlib.contextmanager
def standby_missing(url: str) -> Iterator[None]:
    """Commits wait for a synchronous standby that does not exist."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        while not _commits_wait(connection):  # a process of the server's own has to take notice first
            pass
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")


def _commits_wait(admin: psycopg.Connection) -> bool:
    """Whether a commit waits for the standby; it is given up then."""
    state = "SELECT state, wait_event, query FROM pg_stat_activity WHERE pid = %s"
    with contextlib.closing(psycopg.connect(admin.info.dsn)) as probe:
        probe.pgconn.send_query(b"SELECT pg_logical_emit_message(true, '', '')")
        while True:
            found = admin.execute(state, (probe.info.backend_pid,)).fetchall()[0]
            if found[1] == "SyncRep":
                admin.execute("SELECT pg_terminate_backend(%s, 10000)", (probe.info.backend_pid,))
                return True
            if found[0] == "idle" and found[2]:  # it was idle before it had the query, too
                return False


@functools.cache
def shared_server() -> PostgresServer:
    """The PostgreSQL that all tests of this run share, started now if need be; skips where there are no programs."""
    if programs() is None:
        pytest.skip(ABSENT)
    server = PostgresServer(options=["max_prepared_transactions = 5"])
    atexit.register(server.close)
    server.start()
    return server


def _unprivileged() -> str | None:
    """Who PostgreSQL runs as: root may not."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _stop(pid: int) -> None:
    """Let a process not run any more. Returns when that has taken effect."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        while _state(pid)[0] not in "TZX":
            time.sleep(0.001)


def _children(pid: int) -> list[int]:
    """Not what /proc tells as `children`, where some are missing while others end."""
    everyone = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [each for each in everyone if _state(each)[1] == str(pid)]


def _state(pid: int) -> list[str]:
    """The fields of a process behind its name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0"]


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each in a transaction of its own; returns the rows of the last."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(sql.SQL(statement))
        return cursor.fetchall() if cursor.description else []
