"""A real `nearshore serve` in a process of its own, for benchmarks and for tests that kill it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from nearshore.client import Client
from nearshore.store.lock import read_holder


class ServerProcess:
    """Starts, kills and restarts one server on one data folder.

    environment: NEARSHORE_... settings beside those of the calling process; the log goes to data_dir.log.
    """

    def __init__(self, data_dir: Path, *, environment: dict[str, str] | None = None) -> None:
        """data_dir: the folder it serves; made if absent."""
        self.data_dir = data_dir
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self._environment = {
            **os.environ,
            "NEARSHORE_DATA_DIR": str(data_dir),
            "NEARSHORE_SERVER__PORT": "0",
            "NEARSHORE_LOG__FORMAT": "json",
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "ServerProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, *, timeout_s: float = 600.0) -> None:
        """Start it and wait until it is ready to answer."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nearshore", "serve"],
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        give_up = time.monotonic() + timeout_s
        while not self.address:
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the server did not start:\n{self.log_path.read_text()[-4000:]}")
            time.sleep(0.01)
        with self.client() as client:
            client.wait_ready(timeout_s=max(give_up - time.monotonic(), 1.0))

    @property
    def address(self) -> str:
        """host:port that this very process listens at; empty until it does."""
        holder = read_holder(self.data_dir)
        return holder.address if holder is not None and holder.pid == self.pid else ""

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def client(self) -> Client:
        """A new client of it."""
        return Client(self.address)

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self, *, timeout_s: float = 60.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory by kind (VmRSS, RssAnon, RssFile, VmHWM), in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM")}
