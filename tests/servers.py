"""Servers for tests: one inside the test's process, one in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nearshore import app
from nearshore.client import NO_RETRIES, Client
from nearshore.exit_codes import ExitCode
from nearshore.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
SERVE = (sys.executable, "-m", "nearshore", "--json", "serve")
START_S = 60.0


def make_settings(data_dir: Path, model_dir: Path, **flags: Any) -> Settings:
    """Settings of a server on a free port with the tiny model; flags as for load_settings."""
    defaults: dict[str, Any] = {"embedding__model": "tiny", "embedding__workers": 2, "server__port": 0}
    return load_settings(data_dir=data_dir, model_dir=model_dir, **{**defaults, **flags})


class InProcessServer:
    """A real server on an event loop of its own thread, so that a test can reach into it."""

    def __init__(self, settings: Settings) -> None:
        """Start it and wait until it takes calls."""
        self.settings = settings
        self._address: queue.Queue[str | BaseException] = queue.Queue()
        self._asked_to_stop = False
        self._process = app.Process(settings, on_serving=self._address.put)
        self._thread = threading.Thread(target=self._run, name="server")
        self._thread.start()
        address = self._address.get(timeout=START_S)
        if isinstance(address, BaseException):
            self._thread.join()
            raise address
        self.address = address

    def _run(self) -> None:
        async def serve() -> ExitCode:
            self.loop = asyncio.get_running_loop()
            return await self._process.serve()

        try:
            self.exit_code = asyncio.run(serve())
        except BaseException as error:  # to the test that waits for an address
            self._address.put(error)

    def client(self, **options: Any) -> Client:
        """A client of this server, ready to use, which shows every refusal at once."""
        client = Client(self.address, **{"retries": NO_RETRIES, **options})
        client.wait_ready()
        return client

    def ask_to_stop(self) -> None:
        """What SIGTERM does. Returns at once."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            self.loop.call_soon_threadsafe(self._process.end, "the test is over")

    def stop(self) -> ExitCode:
        """Stop it in order. Returns what the process would exit with."""
        self.ask_to_stop()
        self._thread.join()
        return self.exit_code


class ServerProcess:
    """A server in a process of its own; its log is read as JSON."""

    def __init__(self, environment: Mapping[str, str], *, prefix: Sequence[str] = ()) -> None:
        """Start it with these NEARSHORE_* variables; wait_for says when it has come how far.

        prefix: a command that runs the one behind it in its own place (env, unshare).
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEARSHORE_")}
        path = os.pathsep.join((str(ROOT / "server"), str(ROOT / "indexer")))
        self.process = subprocess.Popen(
            [*prefix, *SERVE],
            env={**inherited, "PYTHONPATH": path, "NEARSHORE_LOG__FORMAT": "json", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._arrived: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="log reader")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self._arrived.put(line)
        self._arrived.put(None)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next log entry of this event. Fails when the process ends before it."""
        while (line := self._arrived.get(timeout=START_S)) is not None:
            entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if entry.get("event") == event:
                return entry
        raise AssertionError(f"no {event!r} before the end: {''.join(self.lines)}")

    def address(self) -> str:
        """Where it serves; waits until it does."""
        return f"127.0.0.1:{self.wait_for('Serving')['port']}"

    def wait(self) -> int:
        """Wait for its end. Returns the exit code."""
        code = self.process.wait(timeout=START_S)
        self._reader.join()
        return code

    def insist(self, number: signal.Signals) -> int:
        """Signal it again and again until it ends, as a person at a keyboard does. Returns the exit code."""
        while self.process.poll() is None:
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.1)
        return self.wait()

    def kill(self) -> None:
        """End it at once if it still runs, and free what it held."""
        self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
