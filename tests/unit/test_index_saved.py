"""Saved indexes: what fits together loads, anything else is refused by name; full disks are reported as such."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nearshore.errors import StorageFullError
from nearshore.index import IndexOptions, Segment, save
from nearshore.index.errors import CorruptIndexError
from nearshore.records import Document, IndexKind, Metric

OPTIONS = IndexOptions(max_tail_rows=100)


def _segment(folder: Path) -> Segment:
    return Segment(folder, dimensions=4, metric=Metric.COSINE, kind=IndexKind.HNSW, options=OPTIONS)


def _load(folder: Path, dimensions: int = 4, metric: Metric = Metric.COSINE) -> Segment:
    return Segment.load(folder, dimensions=dimensions, metric=metric, kind=IndexKind.HNSW, options=OPTIONS)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    segment = _segment(tmp_path / "work")
    vectors = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    segment.append(vectors, [Document(f"d{row}", "", metadata={"k": f"{row}"}) for row in range(300)])
    plan = segment.pending_build()
    assert plan is not None
    segment.adopt(plan.run())
    folder = tmp_path / "saved"
    folder.mkdir()
    save(segment.publish(), folder)
    segment.close()
    return folder


def _edit(name: str, change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def _cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


@pytest.mark.parametrize(
    "damage",
    [
        *(_cut(name) for name in ("index.json", "rows.f32", "alive.npy", "columns.npz", "sealed.faiss")),
        lambda folder: (folder / "columns.npz").unlink(),
        lambda folder: (folder / "sealed.faiss").unlink(),
        lambda folder: np.save(folder / "alive.npy", np.ones(299, bool)),
        _edit("index.json", lambda content: content.update(format_version=99)),
        _edit("index.json", lambda content: content.update(rows=299)),
        _edit("index.json", lambda content: content.pop("generation")),
    ],
)
def test_a_damaged_index_is_refused(saved: Path, damage: Callable[[Path], None]) -> None:
    """A missing, cut or changed file raises CorruptIndexError, and nothing else."""
    damage(saved)
    with pytest.raises(CorruptIndexError):
        _load(saved)


def test_another_shape_is_refused(saved: Path) -> None:
    """An index of other dimensions or another metric is not taken for this collection's."""
    with pytest.raises(CorruptIndexError, match="dimensions"):
        _load(saved, dimensions=8)
    with pytest.raises(CorruptIndexError, match="metric"):
        _load(saved, metric=Metric.DOT)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the rows file cannot grow, append raises StorageFullError, appends nothing, and can be tried again."""
    segment = _segment(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(StorageFullError):
            segment.append(np.ones((3, 4), np.float32), [Document(f"{row}", "") for row in range(3)])
    assert segment.row_count == segment.publish().n == 0
    assert segment.append(np.ones((1, 4), np.float32), [Document("a", "")]) == 0
    segment.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["rows.f32", "sealed.faiss", "columns.npz"])
def test_saving_to_a_full_disk_is_reported(saved: Path, tmp_path: Path, name: str) -> None:
    """When a file of a snapshot cannot be written, save raises StorageFullError."""
    segment = _load(saved)
    target = tmp_path / "full"
    target.mkdir()
    (target / name).symlink_to("/dev/full")
    with pytest.raises(StorageFullError):
        save(segment.publish(), target)
    segment.close()
