"""Fixtures that all tests share: a tiny model, servers with it, and clients of them."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from nearshore import logs, threads  # before all that loads numpy, FAISS and ONNX Runtime
from nearshore.client import Client
from tests.postgres import PostgresServer, shared_server
from tests.servers import InProcessServer, ServerProcess, make_settings
from tests.tiny_bert import make_bundle

assert threads.THREADS_PER_LIBRARY == 1
# How long an example takes says nothing where several processes share the cores, as in `make test`.
settings.register_profile("shared-cores", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-cores")
_numbers = itertools.count(1)
# A job in the background may start with SIGINT ignored, and would hand that on to the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def log_to_standard_error() -> None:
    """As in a server, from the first that is started on: structlog's default is standard output."""
    logs.configure("info", "json")


@pytest.fixture(autouse=True)
def log_to_standard_error_again() -> None:
    """Behind a test of a command too, which logs as a person reads."""
    logs.configure("info", "json")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model_dir with one bundle, "tiny": random weights, 32 dimensions, 64 tokens."""
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    """One PostgreSQL for all tests that leave it running; each makes a database of its own (`postgres_url`)."""
    return shared_server()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """An empty database of the test's own."""
    return postgres_server.create_database()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[InProcessServer]:
    """One server for all tests that do not mind sharing it; use collections of your own (`collection_id`)."""
    running = InProcessServer(make_settings(tmp_path_factory.mktemp("data"), model_dir))
    yield running
    running.stop()


@pytest.fixture
def start_server(tmp_path: Path, model_dir: Path) -> Iterator[Callable[..., InProcessServer]]:
    """A function that starts a server of the test's own, with flags as for load_settings; data in tmp_path/data."""
    running: list[InProcessServer] = []

    def start(**flags: Any) -> InProcessServer:
        running.append(InProcessServer(make_settings(tmp_path / "data", model_dir, **flags)))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def client(server: InProcessServer) -> Iterator[Client]:
    """A client of the shared server."""
    with server.client() as client:
        yield client


@pytest.fixture
def collection_id() -> str:
    """The id of a collection that no other test uses."""
    return f"test-{next(_numbers)}"


@pytest.fixture
def server_process(tmp_path: Path, model_dir: Path) -> Iterator[Callable[..., ServerProcess]]:
    """A function that starts a server in its own process, with NEARSHORE_* variables; data in tmp_path/data."""
    running: list[ServerProcess] = []

    def start(prefix: Sequence[str] = (), **environment: str) -> ServerProcess:
        defaults = {
            "NEARSHORE_DATA_DIR": str(tmp_path / "data"),
            "NEARSHORE_MODEL_DIR": str(model_dir),
            "NEARSHORE_EMBEDDING__MODEL": "tiny",
            "NEARSHORE_EMBEDDING__WORKERS": "2",
            "NEARSHORE_SERVER__PORT": "0",
        }
        running.append(ServerProcess({**defaults, **environment}, prefix=prefix))
        return running[-1]

    yield start
    for each in running:
        each.kill()
