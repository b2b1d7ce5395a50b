"""Slow tests share the scenarios of benchmarks/; corpora and checkpoints come from where the environment says."""

import os
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


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """The folder of small checkpoints with what their authors' code computes; without it tests skip, and say so."""
    found = os.environ.get("NEARSHORE_TEST_FIXTURES")
    if not found:
        pytest.skip("NEARSHORE_TEST_FIXTURES names no folder of checkpoints")
    return Path(found)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A running server with the real model on an empty data folder."""
    with ServerProcess(tmp_path / "data") as running:
        yield running
