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

from nearshore.bundle import (
    INT8_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Precision,
    load_bundle,
    read_manifest,
    write_manifest,
)
from nearshore.cli import main
from nearshore.exit_codes import ExitCode
from nearshore.export.aside import exclusive
from nearshore.export.int8.recipe import SCHEME
from tests.servers import ROOT
from tests.tiny_bert import make_bundle, make_checkpoint, vocabulary

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


def test_a_folder_that_is_not_what_the_bundle_was_made_of_is_refused(
    get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that goes on would serve another model than it named; a copy of the same weights goes without a word."""
    get()
    other, before = make_checkpoint(tmp_path / "other", seed=1), contents(tmp_path / "models" / "mine")
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(other)]
    assert main.run(command) == ExitCode.FAILED
    told = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert told["reason"] == "OTHER_VECTORS"
    assert f"made of other weights than those in {other}" in told["message"]
    assert "--force" in told["remedy"]
    assert contents(tmp_path / "models" / "mine") == before
    same, told = get(checkpoint=make_checkpoint(tmp_path / "same"))
    assert (same["exported"], told) == (False, "")


def _pooled_otherwise(folder: Path) -> None:
    modes = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def _with_other_ids(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    words["red"], words["fish"] = words["fish"], words["red"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("change", [_pooled_otherwise, _with_other_ids])
def test_other_files_beside_the_same_weights_are_another_model(
    get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None]
) -> None:
    """A bundle is not called the one that was named when its tokens or its pooling are others, with its options too."""
    made, _ = get("--pooled")
    other = make_checkpoint(tmp_path / "other")
    change(other)
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(other)]
    assert main.run(command) == ExitCode.FAILED
    told = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert told["reason"] == "OTHER_VECTORS"
    forced, _ = get("--force", checkpoint=other)
    assert all(each in told["message"] for each in (made["fingerprint"], forced["fingerprint"]))


@pytest.fixture
def with_vocabulary(tmp_path: Path) -> Path:
    """A checkpoint whose vocabulary has no capitals, which by itself makes letters small."""
    folder = make_checkpoint(tmp_path / "vocabulary")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(vocabulary()))
    return folder


def test_a_bundle_keeps_how_it_uses_a_vocabulary(get: Get, with_vocabulary: Path, tmp_path: Path) -> None:
    """An export for something else does not undo --cased, nor does --force; where it is the usual none is told."""
    made, _ = get("--cased", checkpoint=with_vocabulary)
    for options in (("--int8",), ("--force",)):
        again, told = get(*options, checkpoint=with_vocabulary)
        assert (again["exported"], again["fingerprint"]) == (True, made["fingerprint"])
        assert "--cased" in told
    assert get(checkpoint=with_vocabulary)[0]["exported"] is False
    shutil.rmtree(tmp_path / "models" / "mine")
    usual, _ = get(checkpoint=with_vocabulary)
    again, told = get("--force", checkpoint=with_vocabulary)
    assert again["fingerprint"] == usual["fingerprint"] != made["fingerprint"]
    assert "case" not in told


@pytest.mark.parametrize("options", [("--int8",), ("--pooled",)])
def test_other_vectors_take_no_bundles_place_unasked(
    get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    """The export is refused with both fingerprints and --force, before anything is lost; --force does it."""
    made, _ = get()
    other = make_checkpoint(tmp_path / "other", seed=1)
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(other)]
    assert main.run([*command, *options]) == ExitCode.FAILED
    told = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert told["reason"] == "OTHER_VECTORS"
    assert load_bundle(tmp_path / "models" / "mine").manifest.fingerprint == made["fingerprint"]
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == ["mine"]
    forced, _ = get(*options, "--force", checkpoint=other)
    assert all(each in told["message"] for each in (made["fingerprint"], forced["fingerprint"]))
    assert "--force" in told["remedy"]


def test_what_is_kept_and_cannot_be_given_is_not_called_asked_for(
    get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedy names the folder to delete, not an option that nobody gave; for one that was given it stays."""
    get("--int8")
    other, folder = make_checkpoint(tmp_path / "other"), tmp_path / "models" / "mine"
    (other / "model.safetensors").unlink()
    shutil.copy(folder / MODEL_FILE, other / "model.onnx")
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(other)]
    for options, remedy in (((), f"with --int8, which is kept: delete {folder}"), (("--int8",), "without --int8")):
        assert main.run([*command, "--force", *options]) == ExitCode.FAILED
        assert remedy in json.loads(capsys.readouterr().err.splitlines()[-1])["error"]["remedy"]


@pytest.mark.parametrize("name", ["mine", "new"])
def test_a_folder_that_does_not_exist_is_not_found(
    get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Whether the bundle is there or not: a name mistyped is never taken for a bundle verified."""
    get()
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", name, "--from", str(tmp_path / "no")]
    assert main.run(command) == ExitCode.NOT_FOUND
    told = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert (told["reason"], told["message"]) == ("CHECKPOINT_NOT_FOUND", f"There is no such folder: {tmp_path / 'no'}.")


@pytest.fixture
def outdated(get: Get, tmp_path: Path) -> str:
    """The int8 fingerprint of a bundle that an older release made: its recipe is of an older scheme."""
    get("--int8")
    folder = tmp_path / "models" / "mine"
    manifest = read_manifest(folder)
    assert manifest.int8 is not None
    older = manifest.int8.recipe.replace(SCHEME, "static-u8s8-1")
    int8 = manifest.int8.model_copy(update={"recipe": older})
    write_manifest(folder, manifest.model_copy(update={"int8": int8}))
    return load_bundle(folder).fingerprints[Precision.INT8]


def test_other_vectors_of_one_precision_are_told_with_both_fingerprints(get: Get, outdated: str) -> None:
    """Where the recipe of the int8 graph alone is another, collections of fp32 are not concerned."""
    again, told = get("--int8", "--force")
    now = again["fingerprints"]["int8"]
    assert now != outdated
    assert f"other vectors than the bundle that was there in int8 ({outdated} before, {now} now)" in told
    assert again["fingerprint"] not in told
    assert "those of fp32 stay as they are" in told


def test_a_newer_recipe_takes_no_graphs_place_unasked(
    get: Get, outdated: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An export for something else is refused where collections of int8 would have other vectors by it."""
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(checkpoint)]
    assert main.run([*command, "--pooled"]) == ExitCode.FAILED
    told = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert told["reason"] == "OTHER_VECTORS"
    assert outdated in told["message"]
    assert "--force" in told["remedy"]
    assert load_bundle(tmp_path / "models" / "mine").fingerprints[Precision.INT8] == outdated


def test_a_newer_recipe_is_told_and_not_taken_unasked(
    get: Get, outdated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain get leaves the bundle as it is; show names the newer scheme, the command, and what follows from it."""
    shown = ["--model-dir", str(tmp_path / "models"), "model", "show", "mine"]
    kept, _ = get("--int8")
    assert (kept["exported"], kept["int8_outdated"], kept["fingerprints"]["int8"]) == (False, True, outdated)
    main.run(shown)
    told = " ".join(capsys.readouterr().out.split())
    assert f"{SCHEME}; `nearshore model get mine --int8 --force --from FOLDER`" in told
    assert "index their documents into new collections" in told
    assert get("--force")[0]["int8_outdated"] is False
    main.run(shown)
    assert "newer recipe" not in capsys.readouterr().out


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


def test_a_checkpoint_in_the_model_folder_that_cannot_be_read_is_not_called_unwritable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder can be written: what the system said of the checkpoint's file is told instead."""
    inside = make_checkpoint(tmp_path / "models" / "checkpoint")
    (inside / "config.json").unlink()
    (inside / "config.json").mkdir()
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(inside)]
    assert main.run(command) == ExitCode.FAILED
    assert "MODEL_FOLDER_READ_ONLY" not in capsys.readouterr().err


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


@pytest.mark.parametrize("options", [(), ("--force",)])
@pytest.mark.parametrize("below", ["", "checkpoint"])
def test_a_checkpoint_in_the_bundles_place_is_not_deleted(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], below: str
) -> None:
    """The weights that are exported may be the only ones: no option deletes them."""
    place = tmp_path / "models" / "mine"
    source = shutil.copytree(checkpoint, place / below)
    before = contents(place)
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(source)]
    assert main.run([*command, *options]) == ExitCode.FAILED
    told = capsys.readouterr()
    assert json.loads(told.err.splitlines()[-1])["error"]["reason"] == "BUNDLE_PLACE_TAKEN"
    assert "exported again" not in told.err
    assert contents(place) == before


def test_a_checkpoint_below_a_bundle_is_not_deleted(get: Get, checkpoint: Path, tmp_path: Path) -> None:
    """A folder that is a bundle besides is no licence to delete what the next one is made of."""
    get()
    inside = shutil.copytree(checkpoint, tmp_path / "models" / "mine" / "checkpoint")
    command = ["--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(inside), "--force"]
    assert main.run(command) == ExitCode.FAILED
    assert contents(inside) == contents(checkpoint)


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_a_folder_that_is_no_bundle_is_not_deleted(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    """Whatever lies there is somebody's, and who wants it gone deletes it; an empty folder is nobody's."""
    place = tmp_path / "models" / "mine"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    command = ["--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(checkpoint), *options]
    assert main.run(command) == ExitCode.FAILED
    assert "move that out of the model folder" in " ".join(capsys.readouterr().err.split())
    assert contents(place) == {"notes.txt": b"mine"}
    (place / "notes.txt").unlink()
    assert main.run(command) == ExitCode.OK


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_a_file_in_a_bundles_place_is_left_there(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    """Also where the place is a link to it: somebody's weights, perhaps, that a rename would hide."""
    weights, place = tmp_path / "mine" / "weights.bin", tmp_path / "models" / "mine"
    for folder in (weights.parent, place.parent):
        folder.mkdir()
    weights.write_bytes(b"weights")
    place.symlink_to(weights)
    command = ["--model-dir", str(place.parent), "model", "get", "mine", "--from", str(checkpoint), *options]
    assert main.run(command) == ExitCode.FAILED
    assert "move that out of the model folder" in " ".join(capsys.readouterr().err.split())
    assert weights.read_bytes() == b"weights"


@pytest.mark.parametrize("options", [(), ("--force",)])
@pytest.mark.parametrize("target", ["gone", "disk/models/mine"])
def test_nothing_is_made_where_a_link_leads_to_nothing(
    get: Get,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    target: str,
    checkpoint: Path,
) -> None:
    """It may lead to a disk that is not mounted; once there is a folder, the bundle is made in its place."""
    place = tmp_path / "models" / "mine"
    place.parent.mkdir()
    place.symlink_to(tmp_path / target)
    command = ["--json", "--model-dir", str(place.parent), "model", "get", "mine", "--from", str(checkpoint)]
    assert main.run([*command, *options]) == ExitCode.FAILED
    told = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert told["reason"] == "BUNDLE_LINK_LOST"
    assert f"{tmp_path / target}, which is not there" in told["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert list(place.parent.iterdir()) == [place]
    (tmp_path / target).mkdir(parents=True)
    assert get()[0]["exported"] is True
    assert (tmp_path / target / MANIFEST_FILE).exists()


def test_what_is_said_of_a_folder_that_is_no_bundle_can_be_done(
    get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No --force is named, which would be refused: the folder is to be moved, and then the bundle is made."""
    place = tmp_path / "models" / "mine"
    place.mkdir(parents=True)
    (place / MODEL_FILE).write_bytes(b"weights")
    assert main.run(["--json", "--model-dir", str(place.parent), "model", "show", "mine"]) == ExitCode.UNAVAILABLE
    told = json.loads(capsys.readouterr().err)["error"]
    assert f"it has no {MANIFEST_FILE}" in told["message"]
    assert "--force" not in told["remedy"]
    assert "move it out of the model folder, then make the bundle with nearshore model get mine" in told["remedy"]
    place.rename(tmp_path / "moved")
    assert get()[0]["exported"] is True


@pytest.mark.parametrize("options", [(), ("--force",)])
@pytest.mark.parametrize("damaged", [True, False])
def test_other_files_beside_a_bundle_are_not_deleted(
    get: Get,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    damaged: bool,
) -> None:
    """Whether it is whole or not: weights beside it may be the only ones."""
    get()
    place = tmp_path / "models" / "mine"
    if damaged:
        (place / MANIFEST_FILE).write_text("{")
    else:
        (place / "model.onnx").write_bytes(b"")  # so that it is exported again
    (place / "model.safetensors").write_bytes(b"weights")
    before = contents(place)
    command = ["--json", "--model-dir", str(tmp_path / "models"), "model", "get", "mine", "--from", str(checkpoint)]
    assert main.run([*command, *options]) == ExitCode.FAILED
    told = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert told["reason"] == "BUNDLE_PLACE_TAKEN"
    assert "model.safetensors in it is no file of a bundle" in told["message"]
    assert contents(place) == before


def test_a_pipe_in_a_bundle_is_refused_and_not_waited_for(
    get: Get, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list says it of that bundle and shows the others; an export names it, and goes once it is gone."""
    get()
    folder, place = ["--json", "--model-dir", str(tmp_path / "models")], tmp_path / "models" / "mine"
    shutil.copytree(place, place.with_name("piped"))
    pipe = place.with_name("piped") / MODEL_FILE
    pipe.unlink()
    os.mkfifo(pipe)
    assert main.run([*folder, "model", "list"]) == 0
    whole, piped = json.loads(capsys.readouterr().out)
    assert (whole["name"], piped["name"]) == ("mine", "piped")
    assert "model.onnx is not a regular file" in piped["error"]
    command = [*folder, "model", "get", "piped", "--from", str(checkpoint)]
    assert main.run(command) == ExitCode.FAILED
    told = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert told["reason"] == "BUNDLE_PLACE_TAKEN"
    assert "model.onnx in it is not a regular file" in told["message"]
    pipe.unlink()
    assert main.run(command) == 0


def test_the_list_tells_which_bundles_have_an_int8_graph(
    get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People see the precisions that a bundle can be served in, as programs do."""
    folder = ["--model-dir", str(tmp_path / "models"), "model", "list"]
    get()
    assert main.run(folder) == 0
    assert "int8" not in capsys.readouterr().out
    get("--int8")
    assert main.run(folder) == 0
    assert "  fp32, int8  nsf1-" in capsys.readouterr().out


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
