"""What several tests of exports start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tiny_bert import make_checkpoint


@pytest.fixture(scope="session")
def pristine_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that no test may change."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def checkpoint(pristine_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may change, in a folder of its own."""
    return Path(shutil.copytree(pristine_checkpoint, tmp_path / "checkpoint"))
