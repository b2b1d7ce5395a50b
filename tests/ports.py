"""Ports for the servers of tests, which bind them some seconds after they were chosen."""

from __future__ import annotations

import itertools
import os
import random
import socket

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
# Below those that the system gives to connections, a thousand for each process of pytest-xdist. In random order, for
# another run may be under way; and each once before any comes again, for what is chosen is not bound yet.
_SHARE = 1_000
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
_FIRST = 20_000 + _SHARE * _WORKER
_ports = itertools.cycle(random.sample(range(_FIRST, _FIRST + _SHARE), _SHARE))


def free_port() -> int:
    """A port that is free on all HOSTS, and that neither a connection nor another test will be given."""
    for port in itertools.islice(_ports, _SHARE):
        try:
            for host in HOSTS:
                socket.create_server((host, port)).close()
        except OSError:
            continue
        return port
    raise RuntimeError(f"no port from {_FIRST} on is free: end what earlier tests have left running")
