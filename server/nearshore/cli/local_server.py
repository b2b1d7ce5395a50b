"""A server of our own for as long as a command runs: on loopback, on a free port, over a folder of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from nearshore.cli.session import session
from nearshore.client import Client
from nearshore.errors import InvalidSettingsError, NearshoreError, NotFoundError, ServiceError, UnavailableError
from nearshore.exit_codes import ExitCode
from nearshore.store.lock import read_holder

START_S = 120.0
STOP_S = 30.0
_PAUSE_S = 0.05
_LOG_TAIL_CHARACTERS = 1_500
_BRANCHES: dict[int | None, type[NearshoreError]] = {
    ExitCode.FAILED: ServiceError,
    ExitCode.USAGE: InvalidSettingsError,
    ExitCode.NOT_FOUND: NotFoundError,
    ExitCode.UNAVAILABLE: UnavailableError,
}
"""By exit code of a server that gave up its start: a branch of the errors that end a command with the same."""


class ServerNotStartedError(UnavailableError):
    """The server that a command needs did not start."""

    reason = "SERVER_NOT_STARTED"


class LocalServer:
    """`nearshore serve` as a child process, which does not outlive this one. Use it in a with block."""

    def __init__(self, folder: Path) -> None:
        """Start it; data and log go into `folder`, a temporary one: it is removed if this process is killed."""
        self._folder = folder / "data"
        self._log = folder / "data.log"
        self.address = ""
        command = [sys.executable, "-m", "nearshore.cli.private_server", str(folder)]
        command += ["serve", "--host", "127.0.0.1", "--port", "0"]
        command += ["--data-dir", str(self._folder), "--log-format", "json", "--log-level", "info"]
        settings = session().settings
        command += ["--model-dir", str(settings.model_dir), "--model", settings.embedding.model]
        if session().config is not None:
            command += ["--config", str(session().config)]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C is for us, we tell the server when to stop. The pipe tells it that we died.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    def wait_ready(self) -> Client:
        """A client, once the server takes calls. Raises what ended it, or ServerNotStartedError with its log's end."""
        until = time.monotonic() + START_S
        while not self.address:
            if self._process.poll() is not None or time.monotonic() > until:
                raise self._refusal()
            holder = read_holder(self._folder) if self._folder.exists() else None
            self.address = holder.address if holder is not None else ""
            if not self.address:
                time.sleep(_PAUSE_S)
        client = Client(self.address, timeout_s=600.0)
        client.wait_ready(START_S)
        return client

    def close(self) -> None:
        """Stop it as an operator would, and wait until it has ended."""
        with self._process:  # closes the pipe, which ends it at once where the wait is interrupted
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            self._process.kill()

    def __enter__(self) -> Self:
        """The server itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.close()

    def _refusal(self) -> NearshoreError:
        """What the last line of its log says that ended it, with the exit code that it had; else the log's end."""
        log = self._log.read_text(errors="replace").strip()
        base = _BRANCHES.get(self._process.poll())
        try:
            said = json.loads(log.rpartition("\n")[2])
            reason, message, remedy = (str(said[key]) for key in ("reason", "event", "remedy"))
        except (ValueError, KeyError, TypeError):
            base = None
        if base is None:
            message = "The server did not start. The end of its log:\n" + log[-_LOG_TAIL_CHARACTERS:]
            return ServerNotStartedError(message, "Start one with `nearshore serve` to see what it lacks.")
        kind: type[NearshoreError] = type(base.__name__, (base,), {"reason": reason})
        return kind(message, remedy)
