"""Weights that a graph's file cannot hold lie in a file beside it: the same vectors, and the same care for the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from nearshore.bundle import Bundle, CorruptBundleError, Precision, load_bundle, weights_beside
from nearshore.embedding import Embedder
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from nearshore.records import F32
from tests.tiny_bert import embed_golden, make_checkpoint
from tests.tiny_encoders import RELATIVES, random_tensors, write_checkpoint

TEXTS = ["a cat", "how do I parse a date from a string?", ""]


def export(checkpoint: Path, destination: Path, *, beside: bool, int8: bool = False) -> Bundle:
    """With the weights in the file of the graph, or beside it."""
    options = ExportOptions(int8=int8, most_graph_bytes=1_000) if beside else ExportOptions(int8=int8)
    return export_bundle(checkpoint, destination, name="tiny", embed_golden=embed_golden, options=options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """Bundles of one checkpoint, both precisions: weights within, weights beside."""
    folder = tmp_path_factory.mktemp("models")
    checkpoint = make_checkpoint(folder / "checkpoint")
    return (
        export(checkpoint, folder / "within", beside=False, int8=True),
        export(checkpoint, folder / "beside", beside=True, int8=True),
    )


def embed(bundle: Bundle) -> F32:
    with Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=10_000) as embedder:
        return embedder.embed(TEXTS).vectors


@pytest.mark.parametrize("precision", Precision)
def test_the_vectors_are_the_same(pair: tuple[Bundle, Bundle], precision: Precision) -> None:
    """Where the weights lie moves no bit of a vector, and not what a vector means."""
    within, beside = (each.at(precision) for each in pair)
    assert not weights_beside(within.model_path).exists()
    assert weights_beside(beside.model_path).exists()
    np.testing.assert_array_equal(embed(beside), embed(within))
    assert beside.fingerprints == within.fingerprints
    assert beside.manifest.int8 == within.manifest.int8


@pytest.mark.parametrize("name", RELATIVES)
def test_every_architecture(tmp_path: Path, name: str) -> None:
    """Relatives of BERT, too, give the same bits."""
    relative = RELATIVES[name]
    checkpoint = write_checkpoint(tmp_path / "checkpoint", relative.config, random_tensors(relative.shapes))
    within, beside = (export(checkpoint, tmp_path / str(each), beside=each) for each in (False, True))
    np.testing.assert_array_equal(beside.golden().vectors, within.golden().vectors)


def test_the_graph_holds_no_weights(pair: tuple[Bundle, Bundle]) -> None:
    """What is large lies beside, each at the start of a page and none twice; what is small stays, for shapes."""
    _, bundle = pair
    tensors = onnx.load(bundle.model_path, load_external_data=False).graph.initializer
    beside = [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]
    places = [{each.key: each.value for each in tensor.external_data} for tensor in beside]
    assert {place["location"] for place in places} == {"model.onnx.data"}
    starts = [int(place["offset"]) for place in places]
    ends = [start + int(place["length"]) for start, place in zip(starts, places, strict=True)]
    assert not any(start % 4096 for start in starts)
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert ends[-1] == weights_beside(bundle.model_path).stat().st_size
    assert max(len(tensor.raw_data) for tensor in tensors) < 1024


def test_the_same_checkpoint_gives_the_same_bytes(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    """Both files of a graph are the same at every export."""
    again = export(pair[1].path.parent / "checkpoint", tmp_path / "bundle", beside=True, int8=True)
    assert again.manifest.files == pair[1].manifest.files


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(("change", "complaint"), [(flip, "has changed"), (Path.unlink, "cannot be read")])
@pytest.mark.parametrize("precision", Precision)
def test_damage_is_refused(
    tmp_path: Path, precision: Precision, change: Callable[[Path], None], complaint: str
) -> None:
    """A file of weights that has changed or is gone is named with what to do; the other precision serves on."""
    bundle = export(make_checkpoint(tmp_path / "checkpoint"), tmp_path / "bundle", beside=True, int8=True)
    file = weights_beside(bundle.at(precision).model_path)
    change(file)
    for each in (precision, None):
        with pytest.raises(CorruptBundleError, match=rf"{file.name} {complaint}") as caught:
            load_bundle(bundle.path, each)
        assert "nearshore model get bundle --force" in caught.value.remedy
    (other,) = set(Precision) - {precision}
    load_bundle(bundle.path, other)


def test_the_size_counts_the_weights(pair: tuple[Bundle, Bundle]) -> None:
    """What a model takes of the bound on loaded models is with its weights, wherever they lie."""
    within, beside = (each.size_bytes for each in pair)
    assert within <= beside < 2 * within


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Neither the file of weights nor anything that was tried on the way stays behind."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")

    def fail(bundle: Bundle, texts: list[str]) -> F32:
        raise RuntimeError

    options = ExportOptions(most_graph_bytes=1_000)
    with pytest.raises(RuntimeError):
        export_bundle(checkpoint, tmp_path / "bundle", name="tiny", embed_golden=fail, options=options)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint"}


def test_a_bundle_holds_its_files_and_no_others(pair: tuple[Bundle, Bundle]) -> None:
    """Every file of the folder but the manifest is listed with its digest."""
    for bundle in pair:
        assert {path.name for path in bundle.path.iterdir()} == {*bundle.manifest.files, "bundle.json"}
