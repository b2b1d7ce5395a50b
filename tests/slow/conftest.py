"""Slow tests share the scenarios of benchmarks/; the corpora come from NEARSHORE_TEST_DATA."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import corpora
from benchmarks.server_process import ServerProcess


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of corpora; tests that need it skip, and say so, where the environment names none."""
    found = corpora.folder()
    if found is None:
        pytest.skip(f"{corpora.VARIABLE} names no folder of corpora")
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A running server with the real model on an empty data folder."""
    with ServerProcess(tmp_path / "data") as running:
        yield running
