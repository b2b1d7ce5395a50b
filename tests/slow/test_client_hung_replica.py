"""A replica that hangs: its connections stay open, and it answers nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nearshore.client import Client
from tests.servers import ServerProcess

HOSTS = ("127.0.0.1", "127.0.0.2")
IDLE_S = 35.0  # three pings of the client, one more than an unwilling server takes


def start(
    server_process: Callable[..., ServerProcess], folder: Path, host: str, port: int
) -> tuple[ServerProcess, int]:
    """A replica that is ready, and its port."""
    process = server_process(
        NEARSHORE_SERVER__HOST=host, NEARSHORE_SERVER__PORT=str(port), NEARSHORE_DATA_DIR=str(folder / host)
    )
    port = process.wait_for("Serving")["port"]
    process.wait_for("Ready")
    return process, port


def test_a_replica_that_hangs_is_left(
    server_process: Callable[..., ServerProcess], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Calls that wait for it are made again elsewhere, none fails, and the other replica never minds being pinged."""
    hung, port = start(server_process, tmp_path, HOSTS[0], 0)
    start(server_process, tmp_path, HOSTS[1], port)
    with Client("ipv4:" + ",".join(f"{host}:{port}" for host in HOSTS)) as client, ThreadPoolExecutor(8) as pool:
        client.wait_ready()
        client.list_collections()
        hung.process.send_signal(signal.SIGSTOP)
        answers = list(pool.map(lambda _: client.list_collections(), range(100)))
        time.sleep(IDLE_S)
        answers.append(client.list_collections())
    hung.process.send_signal(signal.SIGCONT)
    assert answers == [[]] * 101
    assert "too_many_pings" not in capfd.readouterr().err
