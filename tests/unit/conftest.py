"""What several modules of unit tests start from: checkpoints of exports, stores in PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nearshore.store.postgres.store import PostgresStore
from tests.stores import Open, PostgresFactory, open_postgres
from tests.tiny_bert import make_checkpoint


@pytest.fixture(scope="session")
def pristine_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that no test may change."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def checkpoint(pristine_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may change, in a folder of its own."""
    return Path(shutil.copytree(pristine_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def opener() -> Iterator[Open]:
    """open_postgres, whose stores are closed at the end."""
    opened: list[PostgresStore] = []

    def open_store(url: str, **options: Any) -> PostgresStore:
        opened.append(open_postgres(url, **options))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def url() -> str:
    """A database with the tables of this release in it."""
    return PostgresFactory().url
