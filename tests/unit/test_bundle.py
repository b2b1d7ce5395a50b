"""A bundle is what its exporter wrote, or it is refused; its fingerprint says what a vector means."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.bundle import (
    Bundle,
    CorruptBundleError,
    Dense,
    Manifest,
    ModelNotFoundError,
    Pooling,
    Source,
    SpecialTokens,
    bundle_names,
    content_digest,
    fingerprint,
    list_bundles,
    load_bundle,
)
from nearshore.errors import NearshoreError
from nearshore.network import Network
from tests.tiny_bert import embed_golden, make_bundle

MANIFEST = Manifest(
    name="tiny",
    architecture="bert",
    network=Network(
        layers=2,
        heads=4,
        hidden_size=32,
        intermediate_size=128,
        vocabulary_size=213,
        positions=128,
        activation="gelu",
        layer_norm_epsilon=1e-12,
    ),
    dimensions=32,
    max_tokens=64,
    truncation_side="right",
    pooling=(Pooling.MEAN,),
    normalize=True,
    prompts={},
    special_tokens=SpecialTokens.TEXT,
    precision="fp32",
    recipe="none",
    tokenizer_sha256="0" * 64,
    source=Source(kind="folder", location="tiny", revision="", sha256="1" * 64),
    license="apache-2.0",
    inputs=("input_ids",),
    outputs=("sequence_output",),
    exporter="nearshore 1",
    files={},
)


DENSE = Dense(outputs=16, activation="tanh", sha256="3" * 64)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture
def copy(original: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original.path, tmp_path / "tiny"))


def rewrite(folder: Path, **changes: object) -> None:
    """Edit bundle.json as one who also mends its digest."""
    path = folder / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    del content["digest"]
    path.write_text(json.dumps(content | {"digest": content_digest(content)}), encoding="utf-8")


def complaint_about(folder: Path) -> str:
    """What is said of a bundle that does not load; empty if it does."""
    try:
        load_bundle(folder)
    except CorruptBundleError as error:
        return str(error)
    return ""


def test_opens_what_was_exported(original: Bundle) -> None:
    """A loaded bundle equals the one that the export returned, golden vectors included."""
    loaded = load_bundle(original.path)
    assert loaded == original
    golden = loaded.golden()
    assert len(golden.texts) == 12
    np.testing.assert_array_equal(golden.vectors, embed_golden(loaded, golden.texts))


def test_absent_bundle_says_how_to_get_it(tmp_path: Path) -> None:
    """A folder that is not there is a model not found, and the remedy is a command."""
    with pytest.raises(ModelNotFoundError) as caught:
        load_bundle(tmp_path / "some-model")
    assert caught.value.reason == "MODEL_NOT_FOUND"
    assert "nearshore model get some-model" in caught.value.remedy


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "BUNDLE_UNREADABLE",
            "Let the user that runs nearshore",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "TOO_MANY_OPEN_FILES", "ulimit -Hn"),
    ],
)
@pytest.mark.parametrize("call", ["is_dir", "open"])
def test_a_bundle_that_may_not_be_read_is_not_called_damaged(
    copy: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError, reason: str, remedy: str
) -> None:
    """To make it again would help nobody."""

    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Path if call == "is_dir" else os, call, refuse)
        with pytest.raises(NearshoreError) as refused:
            load_bundle(copy)
    assert refused.value.reason == reason
    assert remedy in refused.value.remedy


def test_a_bundle_that_is_being_exchanged_is_not_there(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two renames there is no folder: nobody is told to move one out of the way."""
    look = Path.is_dir

    def exchanged(path: Path) -> bool:
        found = look(path)
        if found and path == copy:
            copy.rename(copy.with_name("beside"))
        return found

    monkeypatch.setattr(Path, "is_dir", exchanged)
    with pytest.raises(ModelNotFoundError):
        load_bundle(copy)


@settings(max_examples=40)
@given(
    file=st.sampled_from(["model.onnx", "tokenizer.json", "golden.npz", "bundle.json"]),
    at=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_a_changed_bit_is_found(original: Bundle, file: str, at: float, bit: int) -> None:
    """One flipped bit anywhere is refused, unless bundle.json still says the same (1e-12, 1E-12)."""
    path = original.path / file
    intact = path.read_bytes()
    damaged = bytearray(intact)
    damaged[int(at * len(intact))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        found = complaint_about(original.path)
    finally:
        path.write_bytes(intact)
    if not found:
        assert json.loads(damaged) == json.loads(intact)
    elif file != "bundle.json":
        assert file in found


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "golden.npz", "bundle.json"])
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    """A bundle without one of its files is refused with that file's name and a remedy."""
    (copy / file).unlink()
    with pytest.raises(CorruptBundleError, match=file) as caught:
        load_bundle(copy)
    assert caught.value.reason == "BUNDLE_CORRUPT"
    assert "nearshore model get tiny" in caught.value.remedy


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "golden.npz", "bundle.json"])
def test_what_is_no_file_is_refused_and_not_waited_for(copy: Path, file: str, make: Callable[[Path], None]) -> None:
    """A pipe in the place of a file, which nobody may ever write into, is named with a remedy."""
    (copy / file).unlink()
    make(copy / file)
    with pytest.raises(CorruptBundleError, match=rf"{file} is not a regular file\. Put the file itself there"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a bundle manifest"),
        (b"[]", "not a bundle manifest"),
        (b"null", "not a bundle manifest"),
        (b"\xff", "not a bundle manifest"),
        (b"{}", "not a bundle manifest"),
        (b'{"format_version": 2}', "has format 2, this nearshore reads 1"),
    ],
)
def test_a_strange_manifest_is_refused(copy: Path, content: bytes, complaint: str) -> None:
    """Whatever bundle.json holds, the answer is an error that says what is wrong with it."""
    (copy / "bundle.json").write_bytes(content)
    with pytest.raises(CorruptBundleError, match=complaint):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"max_tokens": 32}, "its fingerprint"),
        ({"pooling": "cls"}, "its fingerprint"),
        ({"pooling": "median"}, "not a bundle manifest"),
        ({"pooling": "mean+median"}, "not a bundle manifest"),
        ({"pooling": []}, "not a bundle manifest"),
        ({"name": "../escape"}, "not a bundle manifest"),
        ({"default_prompt": "query"}, "not a bundle manifest"),
        ({"surprise": 1}, "not a bundle manifest"),
        ({"files": {}}, "does not list model.onnx"),
        ({"dimensions": 16}, "golden.npz has vectors of shape"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(copy: Path, changes: dict[str, object], complaint: str) -> None:
    """Editing what a vector means, even with a mended digest, does not pass for the same model."""
    rewrite(copy, **changes)
    with pytest.raises(CorruptBundleError, match=complaint):
        load_bundle(copy).golden()


@pytest.mark.parametrize(("said", "edited"), [("apache-2.0", "proprietary"), ("nearshore 0", "nearshore 9")])
def test_an_edited_manifest_is_refused(copy: Path, said: str, edited: str) -> None:
    """bundle.json vouches for all that it says, not only for what moves a vector."""
    path = copy / "bundle.json"
    before = path.read_text(encoding="utf-8")
    assert said in before
    path.write_text(before.replace(said, edited), encoding="utf-8")
    with pytest.raises(CorruptBundleError, match=r"bundle\.json has changed"):
        load_bundle(copy)


def test_lists_bundles_by_name(tmp_path: Path, original: Bundle) -> None:
    """Bundles are listed sorted; half-written folders, other folders and an absent model_dir hold none."""
    for name in ("b", "a", ".c.new"):
        shutil.copytree(original.path, tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert bundle_names(tmp_path) == ["a", "b"]
    assert [bundle.path.name for bundle in list_bundles(tmp_path)] == ["a", "b"]
    assert list_bundles(tmp_path / "absent") == []


def test_fingerprint_never_drifts() -> None:
    """The fingerprint of fixed facts is this string: stored collections depend on it."""
    assert MANIFEST.fingerprint == "nsf1-75ae23a06766c401ba7a9332efc0a1cc"
    other = MANIFEST.model_copy(update={"pooling": (Pooling.CLS,)})
    assert other.fingerprint == "nsf1-30ecec4f06591cdd3353850dcff01ae2"


def test_fingerprint_of_prompts_never_drifts() -> None:
    """It is this string, and not what releases that ignore prompts make of the same fields: they refuse the bundle."""
    prompted = MANIFEST.model_copy(update={"prompts": {"query": "query: "}})
    assert prompted.fingerprint == "nsf1-a1d84cad4057b76438b3400912fc3ef0"
    assert prompted.fingerprint != "nsf1-79df0e6dd02a16bcd85e280ecf8dce16"


@pytest.mark.parametrize(
    "changes",
    [
        {"source": MANIFEST.source.model_copy(update={"sha256": "2" * 64})},
        {"network": MANIFEST.network.model_copy(update={"heads": 2})},
        {"tokenizer_sha256": "2" * 64},
        *({"pooling": (kind,)} for kind in Pooling if kind is not Pooling.MEAN),
        {"pooling": (Pooling.MEAN, Pooling.CLS)},
        {"prompts": {"query": "query: "}},
        {"dense": (DENSE,)},
        {"max_tokens": 32},
        {"normalize": False},
        {"special_tokens": SpecialTokens.PARSE},
        {"recipe": "other"},
    ],
)
def test_fingerprint_tells_meanings_apart(changes: dict[str, object]) -> None:
    """Whatever moves a vector moves the fingerprint."""
    assert MANIFEST.model_copy(update=changes).fingerprint != MANIFEST.fingerprint


@pytest.mark.parametrize(
    "dense",
    [
        (),
        (DENSE, DENSE),
        (DENSE.model_copy(update={"sha256": "4" * 64}),),
        (DENSE.model_copy(update={"activation": "relu"}),),
    ],
)
def test_fingerprint_tells_dense_layers_apart(dense: tuple[Dense, ...]) -> None:
    """Their number, activations and weights all move a vector."""
    one = MANIFEST.model_copy(update={"dense": (DENSE,)})
    assert MANIFEST.model_copy(update={"dense": dense}).fingerprint != one.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"exporter": "nearshore 2"},
        {"license": "mit"},
        {"files": {"model.onnx": "3" * 64}},
        {"outputs": ("sequence_output", "pooled_output")},
        {"source": MANIFEST.source.model_copy(update={"kind": "hub", "location": "a/b", "revision": "c"})},
    ],
)
def test_fingerprint_ignores_the_rest(changes: dict[str, object]) -> None:
    """A newer exporter, another origin or another name keeps the fingerprint."""
    assert MANIFEST.model_copy(update=changes).fingerprint == MANIFEST.fingerprint


def test_fewer_dimensions_have_their_own_fingerprints(original: Bundle) -> None:
    """Each number of components kept is another meaning; all of them are the bundle's."""
    mode, width = original.manifest.special_tokens, original.manifest.dimensions
    assert original.fingerprint_for(mode, dimensions=width) == original.manifest.fingerprint
    assert len({original.fingerprint_for(mode, dimensions=kept) for kept in (1, 8, 16, width)}) == 4


def test_normalizing_otherwise_has_the_fingerprint_of_such_a_bundle(original: Bundle) -> None:
    """As the bundle says is the bundle's; the other way is that of a bundle which says so."""
    manifest, mode = original.manifest, original.manifest.special_tokens
    other = manifest.model_copy(update={"normalize": not manifest.normalize})
    assert original.fingerprint_for(mode, normalize=manifest.normalize) == manifest.fingerprint
    assert original.fingerprint_for(mode, normalize=other.normalize) == other.fingerprint != manifest.fingerprint


def test_special_token_modes_have_their_own_fingerprints(original: Bundle) -> None:
    """A request that parses special tokens gets another fingerprint than one that does not."""
    assert original.fingerprint_for(SpecialTokens.TEXT) == original.manifest.fingerprint
    assert original.fingerprint_for(SpecialTokens.PARSE) != original.manifest.fingerprint
    assert fingerprint(original.manifest, special_tokens=SpecialTokens.PARSE).startswith("nsf1-")
