"""Bundles with products in 8 bits: near to float32, the same in any company, and never mistaken for it."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from nearshore.bundle import (
    MANIFEST_FILE,
    Bundle,
    CorruptBundleError,
    Precision,
    PrecisionMissingError,
    load_bundle,
    write_manifest,
)
from nearshore.embedding import Embedder
from nearshore.embedding.pooling import normalize
from nearshore.embedding.processor import overflows
from nearshore.embedding.session import Session
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.families import BERT
from nearshore.export.graph.builder import GraphBuilder
from nearshore.export.int8.products import IntegerProducts
from nearshore.export.int8.ranges import Range, trying_batches
from nearshore.export.int8.recipe import Loss, Recipe
from nearshore.export.int8.search import find_recipe
from nearshore.export.options import ExportOptions
from nearshore.network import Network
from nearshore.records import F32
from tests.tiny_bert import WORDS, embed_golden, make_bundle, make_checkpoint
from tests.tiny_encoders import RELATIVES, random_tensors, write_checkpoint

TEXTS = st.lists(st.sampled_from([*WORDS.split(), "!", "qwxz"]), max_size=60).map(" ".join)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("models"), int8=True)


@pytest.fixture(scope="module")
def embedder(bundle: Bundle) -> Iterator[Embedder]:
    with Embedder.open(bundle.at(Precision.INT8), workers=2, max_run_tokens=128, max_queued_tokens=100_000) as embedder:
        yield embedder


def cosines(left: F32, right: F32) -> F32:
    """Of each row with its fellow."""
    products: F32 = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    return products


def test_vectors_are_near_to_those_in_float32(bundle: Bundle, embedder: Embedder) -> None:
    """Texts that the recipe was not made with keep a mean cosine of 0.998 to float32."""
    texts = ["", "cat", "how to parse a date", "the " * 100, "red green blue " * 9, "string number list data search"]
    found = cosines(embedder.embed(texts).vectors, embed_golden(bundle, texts))
    assert found.mean() >= 0.998
    assert found.min() >= 0.985


@settings(max_examples=50, deadline=None)
@given(text=TEXTS, company=st.lists(TEXTS, max_size=20), place=st.integers(0, 20))
def test_company_does_not_move_a_vector(embedder: Embedder, text: str, company: list[str], place: int) -> None:
    """A text has the same bits alone and anywhere in any batch, for no scale depends on what shares its run."""
    place = min(place, len(company))
    batch = [*company[:place], text, *company[place:]]
    alone = embedder.embed([text]).vectors[0]
    assert embedder.embed(batch).vectors[place].tobytes() == alone.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 24),
    outliers=st.sampled_from([0, 1, 5]),
    kind=st.sampled_from(["layer.0", "layer.0.attention.context", "layer.0.feed_forward.active"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_product_is_as_exact_as_its_steps(
    rows: int, inputs: int, outputs: int, outliers: int, kind: str, seed: int
) -> None:
    """Each number differs from the exact product by no more than half a step of either side allows."""
    dice = np.random.default_rng(seed)
    sizes = np.exp(dice.normal(0, 2, inputs)).astype(np.float32)  # some channels are much larger than others
    values = (dice.normal(0, 1, (rows, inputs)) * sizes).astype(np.float32)
    weight, bias = (dice.normal(0, 1, shape).astype(np.float32) for shape in ((inputs, outputs), outputs))
    seen = Range(values.min(axis=0), values.max(axis=0))
    products = IntegerProducts({kind: seen}, Recipe(0.5, outliers), layers=1)
    got = run_product(products, kind, values, weight, bias)
    exact = values.astype(np.float64) @ weight + bias
    low, high = min(0.0, values.min()), max(0.0, values.max())
    if kind == "layer.0":  # prepared channel by channel: the loosest bound that holds for any preparation
        assert np.abs(got - exact).max() <= 0.05 * (np.abs(values) @ np.abs(weight)).max() * np.sqrt(inputs)
        return
    step, steps = (high - low) / 255, np.abs(weight).max(axis=0) / 127
    bound = np.abs(values) @ np.broadcast_to(steps / 2, weight.shape) + step / 2 * np.abs(weight).sum(axis=0)
    bound += inputs * step * steps / 4
    assert (np.abs(got - exact) <= 1.01 * bound + 1e-4 * np.abs(exact) + 1e-5).all()


@pytest.mark.parametrize("kind", ["layer.0", "layer.0.attention.context", "layer.0.feed_forward.active"])
def test_a_channel_that_is_not_used_costs_nothing(kind: str) -> None:
    """However large it is: pruned checkpoints have such channels, and the others keep their steps."""
    dice = np.random.default_rng(1)
    values, weight = dice.normal(0, 1, (9, 64)).astype(np.float32), dice.normal(0, 1, (64, 24)).astype(np.float32)
    weight[7] = 0
    worst = []
    for size in (1, 1000):
        values[:, 7] *= size
        products = IntegerProducts({kind: Range(values.min(axis=0), values.max(axis=0))}, Recipe(0.5, 0), layers=1)
        got = run_product(products, kind, values, weight, np.zeros(24, np.float32))
        worst.append(np.abs(got - values.astype(np.float64) @ weight).max())
    assert worst[1] == pytest.approx(worst[0], rel=0.01)


def test_weights_that_are_all_zero_give_zero() -> None:
    """There is no range to divide by."""
    nothing = np.zeros((4, 4), np.float32)
    products = IntegerProducts({"layer.0": Range(np.zeros(4, np.float32), np.ones(4, np.float32))}, Recipe(0.5, 0), 1)
    assert not run_product(products, "layer.0", np.ones((2, 4), np.float32), nothing, nothing[0]).any()


@pytest.mark.parametrize("longest", [2, 3, 64, 256, 285, 512, 8192])
@pytest.mark.parametrize("vocabulary", [8, 300, 30_522])
def test_ranges_are_sought_in_texts_that_the_model_takes(longest: int, vocabulary: int) -> None:
    """No batch is empty, and none is longer than the model takes, but for one token between the special ones."""
    batches = list(trying_batches([[1, 2]], vocabulary, longest))
    assert all(batch.size for batch in batches)
    assert max(batch.shape[1] for batch in batches) <= max(longest, 3)


def run_product(products: IntegerProducts, kind: str, values: F32, weight: F32, bias: F32) -> F32:
    """One product in a graph of its own."""
    network = Network(
        layers=1, heads=1, hidden_size=8, intermediate_size=8, vocabulary_size=8, positions=8, activation="gelu",
        layer_norm_epsilon=1e-12,
    )  # fmt: skip
    graph = GraphBuilder(BERT, network, lambda name: weight)
    graph.model.graph.input.append(helper.make_tensor_value_info(kind, TensorProto.FLOAT, ["rows", values.shape[1]]))
    products.multiply(graph, kind, weight, bias, ["product"])
    graph.output("product", ["rows", weight.shape[1]])
    session = ort.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: F32 = session.run(None, {kind: values})[0]
    return result


@pytest.mark.parametrize("name", RELATIVES)
def test_every_architecture_has_integers(tmp_path: Path, name: str) -> None:
    """Relative, rotary and local attention, gated feed-forwards and shared layers go through the same products."""
    relative = RELATIVES[name]
    checkpoint = write_checkpoint(tmp_path / "checkpoint", relative.config, random_tensors(relative.shapes))
    bundle = export_bundle(
        checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden, options=ExportOptions(int8=True)
    )
    texts = ["cat", "how to parse a date", "red green blue " * 9]
    found = cosines(embed_golden(bundle.at(Precision.INT8), texts), embed_golden(bundle, texts))
    assert found.min() >= 0.985


def test_without_vnni_the_vectors_are_the_same(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way round the overflow of processors without VNNI gives what integers give, bit for bit."""
    texts = [[2, *range(10, 40), 3], [2, 50, 50, 50, 3]]
    found = []
    for flags in ("avx2 avx512_vnni", "avx2"):
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(f"processor : 0\nflags : fpu {flags}\n", encoding="utf-8")
        monkeypatch.setattr("nearshore.embedding.processor._CPUINFO", cpuinfo)
        assert overflows() is ("vnni" not in flags and platform.machine() == "x86_64")
        session = Session(bundle.at(Precision.INT8))
        found.append([session.run([text])[0] for text in texts])
    if "vnni" in Path("/proc/cpuinfo").read_text():  # elsewhere the first of the two may overflow
        np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(np.linalg.norm(normalize(np.array(found[1])), axis=1), 1, atol=1e-5)


def test_the_layers_multiply_in_integers_and_without_a_mask(bundle: Bundle) -> None:
    """All six products of every layer are in integers, their two normalized inputs smoothed, and nothing is masked."""
    graph = onnx.load(str(bundle.at(Precision.INT8).model_path)).graph
    layers = bundle.manifest.network.layers
    found = Counter(node.op_type for node in graph.node)
    assert found["MatMulIntegerToFloat"] == 6 * layers
    assert found["MatMul"] == sum(node.output[0].endswith(".beside") for node in graph.node)
    assert sum(node.op_type == "Mul" and node.output[0].endswith(".smooth") for node in graph.node) == 2 * layers
    assert [each.name for each in graph.input] == ["input_ids", "token_type_ids"]


def test_a_vector_says_its_precision(bundle: Bundle, embedder: Embedder) -> None:
    """Vectors of the two precisions have fingerprints of their own, so that nothing compares them."""
    assert embedder.embed(["cat"]).fingerprint == embedder.fingerprint() != bundle.manifest.fingerprint
    plain = load_bundle(bundle.path)
    assert plain.fingerprint_for(plain.manifest.special_tokens) == bundle.manifest.fingerprint


def test_float32_does_not_notice(tmp_path: Path, bundle: Bundle) -> None:
    """A bundle with both graphs means the same in float32 as one without the other, bit for bit."""
    plain = make_bundle(tmp_path)
    assert plain.manifest.fingerprint == bundle.manifest.fingerprint
    assert plain.model_path.read_bytes() == bundle.model_path.read_bytes()


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path, bundle: Bundle) -> None:
    """The search for a recipe leaves nothing to chance."""
    again = make_bundle(tmp_path, int8=True)
    assert again.at(Precision.INT8).model_path.read_bytes() == bundle.at(Precision.INT8).model_path.read_bytes()
    assert again.manifest.int8 == bundle.manifest.int8


def test_a_precision_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Serving int8 from a bundle without it says how to make it."""
    with pytest.raises(PrecisionMissingError, match=r"nearshore model get tiny --int8"):
        make_bundle(tmp_path).at(Precision.INT8)


@pytest.mark.parametrize(("changed", "other"), [(Precision.FP32, Precision.INT8), (Precision.INT8, Precision.FP32)])
def test_a_changed_graph_is_refused(tmp_path: Path, changed: Precision, other: Precision) -> None:
    """A graph that has changed is not used; a start in the other precision does not spend time on reading it."""
    bundle = make_bundle(tmp_path, int8=True)
    file = bundle.at(changed).model_path
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for precision in (None, changed):
        with pytest.raises(CorruptBundleError, match=rf"{file.name} has changed"):
            load_bundle(bundle.path, precision)
    assert load_bundle(bundle.path, other) == bundle.at(other)


def test_the_first_recipe_within_the_loss_is_kept() -> None:
    """Recipes are tried from the fastest on; what each cost is told, and none is taken that costs more than allowed."""
    exact = np.eye(4, dtype=np.float32)
    recipes = [Recipe(0.6, 0), Recipe(0.6, 16), Recipe(0.6, 32)]
    away = {recipes[0]: 0.3, recipes[1]: 0.05, recipes[2]: 0.01}
    loss = Loss(least_mean=0.99, least=0.98)
    found = find_recipe(recipes, lambda recipe: exact + np.float32(away[recipe]), exact, loss)
    assert not isinstance(found, tuple)
    assert found.recipe == recipes[1]
    assert [trial.recipe for trial in found.trials] == [str(recipe) for recipe in recipes[:2]]
    none = find_recipe(recipes, lambda recipe: exact + np.float32(1), exact, loss)
    assert isinstance(none, tuple)
    assert len(none) == 3


def test_no_recipe_is_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every recipe costs too much the export says how near they came, and leaves nothing behind."""
    monkeypatch.setattr("nearshore.export.int8.conversion._LOSS", Loss(least_mean=1.1))
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(UnusableCheckpointError, match=r"recipes the best has a mean cosine of 0\.9") as caught:
        export_bundle(
            checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden, options=ExportOptions(int8=True)
        )
    assert caught.value.metadata["checkpoint"] == str(checkpoint)
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    ("tensor", "rows", "number"),
    [
        ("embeddings.word_embeddings.weight", slice(200, 201), np.nan),  # of a token that no golden text has
        ("embeddings.LayerNorm.weight", slice(None), np.inf),
        ("encoder.layer.0.attention.self.query.weight", slice(None), 3e38),  # more than its products can be
    ],
)
def test_damaged_weights_are_not_blamed_on_8_bits(tmp_path: Path, tensor: str, rows: slice, number: float) -> None:
    """The refusal names the checkpoint and what is wrong with it, as it does without --int8."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    tensors = load_file(checkpoint / "model.safetensors")
    tensors[tensor][rows] = number
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(UnusableCheckpointError, match=r"not finite.* damaged") as caught:
        export_bundle(
            checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden, options=ExportOptions(int8=True)
        )
    assert caught.value.metadata["checkpoint"] == str(checkpoint)
    assert "int8" not in str(caught.value)


def test_the_inputs_of_the_graph_in_8_bits_are_told(tmp_path: Path) -> None:
    """They are those that the graph has, mean nothing to its vectors, and are missing from older bundles."""
    bundle = make_bundle(tmp_path, int8=True)
    int8 = bundle.manifest.int8
    assert int8 is not None
    session = ort.InferenceSession(str(bundle.at(Precision.INT8).model_path), providers=["CPUExecutionProvider"])
    assert int8.inputs == tuple(each.name for each in session.get_inputs())
    assert "attention_mask" in set(bundle.manifest.inputs) - set(int8.inputs)
    older = bundle.manifest.model_copy(update={"int8": int8.model_copy(update={"inputs": ()})})
    write_manifest(bundle.path, older)
    assert "inputs" not in json.loads((bundle.path / MANIFEST_FILE).read_text())["int8"]
    assert load_bundle(bundle.path).fingerprints == bundle.fingerprints


def test_a_bundle_that_cannot_be_used_is_named_by_its_own_folder(tmp_path: Path) -> None:
    """Not by the one that it was written in, which is gone when the message is read."""

    def refuse(bundle: Bundle, texts: list[str]) -> F32:
        raise CorruptBundleError(bundle.path, "it is only a test")

    with pytest.raises(CorruptBundleError, match="it is only a test") as caught:
        export_bundle(make_checkpoint(tmp_path / "checkpoint"), tmp_path / "tiny", name="tiny", embed_golden=refuse)
    assert caught.value.metadata["bundle"] == str(tmp_path / "tiny")
