"""Several server processes at one port of several addresses of this machine, as replicas behind one name."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nearshore.exit_codes import ExitCode
from tests.ports import HOSTS, free_port
from tests.servers import ServerProcess

Start = Callable[..., ServerProcess]


class BalancedServers:
    """They drain, their connections age, and each has a data folder of its own; `target` names all of them."""

    def __init__(self, start: Start, folder: Path, **environment: str) -> None:
        """Start them, side by side. start: the fixture server_process; environment: beside what tells them apart."""
        self._start = start
        self._folder = folder
        self._environment = environment
        self.port = free_port()
        self.addresses = [f"{host}:{self.port}" for host in HOSTS]
        self.target = "ipv4:" + ",".join(self.addresses)
        self.processes: dict[str, ServerProcess] = {}
        with ThreadPoolExecutor(len(HOSTS)) as pool:
            list(pool.map(self.start, HOSTS))

    def start(self, host: str) -> None:
        """Start one, and wait until it is ready."""
        self.processes[host] = self._start(
            NEARSHORE_DATA_DIR=str(self._folder / host),
            NEARSHORE_SERVER__HOST=host,
            NEARSHORE_SERVER__PORT=str(self.port),
            NEARSHORE_SERVER__DRAIN_S="0.2",
            NEARSHORE_SERVER__MAX_CONNECTION_AGE_S="1",
            NEARSHORE_EMBEDDING__WORKERS="1",
            **self._environment,
        )
        self.processes[host].wait_for("Ready")

    def restart(self, host: str) -> None:
        """End one as Kubernetes does, and start it again."""
        self.processes[host].process.send_signal(signal.SIGTERM)
        assert self.processes[host].wait() == ExitCode.OK
        self.start(host)

    def kill(self, host: str) -> None:
        """Kill one, and start it again."""
        self.processes[host].kill()
        self.start(host)
