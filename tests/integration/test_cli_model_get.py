"""`nearshore model get` over a bundle that is there, whole or damaged, and beside another that does the same."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nearshore.bundle import INT8_FILE, MANIFEST_FILE, MODEL_FILE
from nearshore.cli import main
from nearshore.exit_codes import ExitCode
from nearshore.export.aside import exclusive
from tests.servers import ROOT
from tests.tiny_bert import make_bundle, make_checkpoint

Get = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a pooler."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def get(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Get:
    """Gets the bundle "mine" with these options; returns what it printed as JSON, and all that it told besides."""

    def run(*options: str, checkpoint: Path = checkpoint) -> tuple[dict[str, Any], str]:
        command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine"]
        assert main.run([*command, "--from", str(checkpoint), *options]) == 0
        captured = capsys.readouterr()
        printed: dict[str, Any] = json.loads(captured.out)
        return printed, captured.err

    return run


@pytest.mark.parametrize("options", [("--pooled", "--all-layers", "--int8"), ("--contract", "tfhub", "--int8")])
@pytest.mark.parametrize("damaged", [MODEL_FILE, INT8_FILE])
def test_a_damaged_bundle_gets_back_all_that_it_was_made_with(
    get: Get, tmp_path: Path, options: tuple[str, ...], damaged: str
) -> None:
    """Without being told, from its manifest: the graph in 8 bits, further outputs, and their names."""
    made, _ = get(*options)
    (tmp_path / "models" / "mine" / damaged).write_bytes(b"")
    again, told = get()
    assert again["exported"] is True
    assert {**made, "elapsed_s": 0} == {**again, "elapsed_s": 0}
    assert "It is exported again." in told
    assert all(option in told for option in options if option.startswith("--"))


def test_a_bundle_keeps_what_it_gave_when_it_gets_more(get: Get) -> None:
    """An option that is added takes none away, nor does --force."""
    get("--pooled")
    assert get("--int8")[0]["outputs"] == ["sequence_output", "pooled_output"]
    forced, told = get("--force")
    assert (forced["outputs"], bool(forced["int8"])) == (["sequence_output", "pooled_output"], True)
    assert "--pooled --int8" in told


def test_what_a_lost_manifest_does_not_tell_is_said(get: Get, tmp_path: Path) -> None:
    """The graph in 8 bits is seen and made again; further outputs are not known, and a warning names their options."""
    get("--pooled", "--int8")
    (tmp_path / "models" / "mine" / MANIFEST_FILE).write_text("{")
    again, told = get()
    assert (again["outputs"], bool(again["int8"])) == (["sequence_output"], True)
    assert "cannot be read" in told
    assert "--pooled" in told
    assert get("--pooled")[0]["exported"] is True


def test_other_vectors_than_before_are_told(get: Get, tmp_path: Path) -> None:
    """Collections of the bundle that was there would only be found out at the next text."""
    assert "other vectors" not in get()[1]
    assert "other vectors" not in get("--force")[1]
    assert "gives other vectors" in get("--force", checkpoint=make_checkpoint(tmp_path / "other", seed=1))[1]


@pytest.mark.parametrize("model_dir", ["file", "file/models"])
def test_a_model_folder_that_cannot_be_written_is_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model_dir: str
) -> None:
    """With the folder, what the system said, and the settings that name another."""
    (tmp_path / "file").touch()
    command = ["--json", "--model-dir", str(tmp_path / model_dir), "model", "get", "mine", "--from", str(checkpoint)]
    assert main.run(command) == ExitCode.UNAVAILABLE
    told = json.loads(capsys.readouterr().err)["error"]
    assert told["reason"] == "MODEL_FOLDER_READ_ONLY"
    assert str(tmp_path / model_dir) in told["message"]
    assert "NEARSHORE_MODEL_DIR" in told["remedy"]


def test_a_checkpoint_that_cannot_be_read_is_not_the_model_folders_fault(get: Get, tmp_path: Path) -> None:
    """Errors of other files keep their names."""
    (tmp_path / "file").touch()
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine"]
    assert main.run([*command, "--from", str(tmp_path / "file")]) == ExitCode.FAILED


def test_one_of_two_at_once_exports(checkpoint: Path, tmp_path: Path) -> None:
    """Who had to wait looks again before it exports, and finds the other's bundle done."""
    folder, model_dir = make_bundle(tmp_path / "made", name="mine").path, tmp_path / "models"
    model_dir.mkdir()
    command = [sys.executable, "-m", "nearshore", "--json", "--model-dir", str(model_dir), "model", "get", "mine"]
    path = os.pathsep.join((str(ROOT / "server"), str(ROOT / "indexer")))
    with exclusive(model_dir / "mine"):
        waiting = subprocess.Popen(
            [*command, "--from", str(checkpoint)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert "Waiting for another process" in waiting.stderr.readline()
        shutil.copytree(folder, model_dir / "mine")
    out, _ = waiting.communicate()
    assert json.loads(out)["exported"] is False
