"""An export gives the same bundle every time, and a whole one or none."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers

import nearshore
from nearshore.bundle import Bundle, Pooling, SpecialTokens, load_bundle
from nearshore.export.aside import exclusive, written_aside
from nearshore.export.errors import LostLinkError, UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.records import F32
from tests.tiny_bert import embed_golden, make_bundle

PATIENCE_S = 20


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def visible(folder: Path) -> list[str]:
    """Names that are not hidden."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_same_checkpoint_same_bytes(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """Two exports of one checkpoint agree in every byte of every file."""
    for name in ("one", "two"):
        export_bundle(pristine_checkpoint, tmp_path / name, name="tiny", embed_golden=embed_golden)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_other_weights_other_fingerprint(tmp_path: Path) -> None:
    """Two checkpoints that differ in their weights alone are told apart."""
    one, two = (make_bundle(tmp_path, f"tiny-{seed}", seed=seed) for seed in (0, 1))
    assert one.manifest.tokenizer_sha256 == two.manifest.tokenizer_sha256
    assert one.manifest.fingerprint != two.manifest.fingerprint


def test_manifest_says_what_the_checkpoint_says(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """Pooling, normalization, limit, licence and origin are read from the checkpoint."""
    manifest = export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden).manifest
    assert (manifest.name, manifest.dimensions, manifest.max_tokens) == ("tiny", 32, 64)
    assert (manifest.pooling, manifest.normalize) == ((Pooling.MEAN,), True)
    assert manifest.special_tokens is SpecialTokens.TEXT
    assert (manifest.license, manifest.source.kind) == ("apache-2.0", "folder")
    assert manifest.outputs == ("sequence_output",)


def test_tokenizer_neither_truncates_nor_pads(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """The truncation and padding of the checkpoint's tokenizer.json are gone, the rest is kept."""
    bundle = export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    original = json.loads((pristine_checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    kept = json.loads(bundle.tokenizer_path.read_text(encoding="utf-8"))
    assert original["truncation"] is not None
    assert original["padding"] is not None
    assert kept == original | {"truncation": None, "padding": None}
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path))
    assert len(tokenizer.encode("a " * 100).ids) == 102
    assert len(tokenizer.encode("a").ids) == 3


def test_golden_texts_reach_beyond_the_limit(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """Among the golden texts are the empty one, one that spells special tokens and one that must be cut."""
    bundle = export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    texts = bundle.golden().texts
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path))
    assert "" in texts
    assert any("[SEP]" in text for text in texts)
    assert max(len(tokenizer.encode(text).ids) for text in texts) > 600


def test_golden_callable_sees_a_bundle_without_golden(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """While golden vectors are computed the bundle says that it has none, afterwards that it has."""
    seen = []

    def embed(bundle: Bundle, texts: Sequence[str]) -> F32:
        seen.append(bundle.has_golden)
        return embed_golden(bundle, texts)

    assert export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed).has_golden
    assert seen == [False]


def test_a_failed_export_changes_nothing(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """An error on the way leaves the earlier bundle as it was and nothing beside it."""
    export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    before = contents(tmp_path / "tiny")

    def embed(bundle: Bundle, texts: Sequence[str]) -> F32:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed)
    assert contents(tmp_path / "tiny") == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("broken", [np.zeros((12, 31)), np.zeros((11, 32)), np.full((12, 32), np.nan)])
def test_impossible_golden_vectors_stop_the_export(pristine_checkpoint: Path, tmp_path: Path, broken: F32) -> None:
    """Golden vectors of another shape, or not finite, never get into a bundle."""
    with pytest.raises((ValueError, UnusableCheckpointError), match=r"vectors of shape|not finite"):
        export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=lambda bundle, texts: broken)
    assert visible(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from nearshore.export.exporter import export_bundle

def embed(bundle, texts):
    os.kill(os.getpid(), signal.SIGKILL)

export_bundle(Path(sys.argv[1]), Path(sys.argv[2]), name="tiny", embed_golden=embed)
"""


def test_a_killed_export_leaves_no_half_bundle(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """Kill -9 in the middle leaves no bundle, and the next export succeeds and tidies up."""
    path = str(Path(nearshore.__file__).parents[1])
    command = [sys.executable, "-c", KILLED, str(pristine_checkpoint), str(tmp_path / "tiny")]
    assert subprocess.run(command, env={"PYTHONPATH": path}, check=False).returncode == -9
    assert visible(tmp_path) == []
    assert any(path.is_dir() for path in tmp_path.iterdir())
    export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    load_bundle(tmp_path / "tiny")


def test_what_was_there_survives_a_kill_between_renames(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """The old bundle lies hidden then; a next export that fails leaves it where it was, not nothing."""
    bundle = export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    bundle.path.rename(tmp_path / ".tiny.old")
    with pytest.raises(KeyError), written_aside(bundle.path):
        raise KeyError
    assert load_bundle(bundle.path) == bundle


def test_exports_to_one_place_take_turns(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """Exports of one bundle at the same time all succeed, and it loads afterwards."""
    start = threading.Barrier(4)

    def export(_: int) -> Bundle:
        start.wait()
        return export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)

    with ThreadPoolExecutor(4) as pool:
        bundles = list(pool.map(export, range(4)))
    assert [load_bundle(tmp_path / "tiny")] * 4 == bundles


def test_a_lock_that_is_deleted_lets_in_one_at_a_time(tmp_path: Path) -> None:
    """Who waited for it locks the one that is there by then, for which those who come later wait; none is left."""
    waits, inside, leave, later_waits = (threading.Event() for _ in range(4))

    def waiting() -> None:
        with exclusive(tmp_path / "tiny", on_wait=waits.set):
            inside.set()
            assert leave.wait(PATIENCE_S)

    def later() -> None:
        with exclusive(tmp_path / "tiny", on_wait=later_waits.set):
            assert leave.is_set()

    with ThreadPoolExecutor(2) as pool:
        with exclusive(tmp_path / "tiny"):
            second = pool.submit(waiting)
            assert waits.wait(PATIENCE_S)
        assert inside.wait(PATIENCE_S)
        third = pool.submit(later)
        waited = later_waits.wait(PATIENCE_S)
        leave.set()
        for each in (second, third):
            each.result()
    assert waited
    assert list(tmp_path.iterdir()) == []


def test_an_export_replaces_a_damaged_bundle(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """The remedy for a corrupt bundle, exporting it again, works without deleting anything first."""
    bundle = export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    bundle.model_path.write_bytes(b"")
    assert export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden) == bundle


def test_a_link_to_a_bundle_stays_one(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """The bundle that it leads to is replaced where it lies, and nothing is left beside either."""
    target, models = tmp_path / "elsewhere" / "shared", tmp_path / "models"
    export_bundle(pristine_checkpoint, target, name="tiny", embed_golden=embed_golden).model_path.write_bytes(b"")
    models.mkdir()
    (models / "tiny").symlink_to(target)
    export_bundle(pristine_checkpoint, models / "tiny", name="tiny", embed_golden=embed_golden)
    assert (models / "tiny").readlink() == target
    load_bundle(target)
    assert [path.name for path in models.iterdir()] == ["tiny"]
    assert [path.name for path in target.parent.iterdir()] == ["shared"]


def test_a_link_that_an_export_left_hidden_is_cleared_away(pristine_checkpoint: Path, tmp_path: Path) -> None:
    """Releases that replaced links left them so; the next export does not fail for it."""
    export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    (tmp_path / "linked").mkdir()
    (tmp_path / ".tiny.old").symlink_to(tmp_path / "linked")
    export_bundle(pristine_checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linked", "tiny"]


def test_a_lost_link_into_a_folder_that_may_not_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is not mounted leaves such a folder, which nobody is to make writable."""
    link = tmp_path / "mine"
    link.symlink_to(tmp_path / "gone")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(LostLinkError), exclusive(link):
            pass
