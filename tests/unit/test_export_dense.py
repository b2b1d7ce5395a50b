"""Dense modules of sentence-transformers are exported and served as the library computes them, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from nearshore.bundle import Bundle, CorruptBundleError, DenseActivation, DenseLayer, Precision, load_bundle
from nearshore.embedding.dense import apply_dense
from nearshore.embedding.embedder import Embedder
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from nearshore.records import F32
from tests.numpy_sentences import ACTIVATIONS, dense
from tests.pytorch_files import save, tensor
from tests.tiny_bert import corpus, embed_golden, write_json

TORCH = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
}
TEXTS = ["how do fish swim", "a red bird", "", "data " * 100]


def write_modules(folder: Path, *kinds: str) -> None:
    """modules.json with these behind the transformer."""
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [
        {"path": f"{number}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(kinds, start=1)
    ]
    write_json(folder / "modules.json", modules)


def write_dense(folder: Path, inputs: int, outputs: int, activation: str = "tanh", *, bias: bool = True) -> None:
    """The folder of a module with random weights."""
    folder.mkdir()
    rng = np.random.default_rng(outputs)
    tensors = {"linear.weight": (rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)}
    if bias:
        tensors["linear.bias"] = rng.standard_normal(outputs).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    config = {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": TORCH[activation]}
    write_json(folder / "config.json", config)


def export(checkpoint: Path, name: str = "tiny", *, int8: bool = False) -> Bundle:
    options = ExportOptions(int8=int8)
    destination = checkpoint.parent / name
    return export_bundle(checkpoint, destination, name=name, embed_golden=embed_golden, options=options)


def serve(bundle: Bundle, texts: Sequence[str]) -> F32:
    with Embedder.open(bundle, workers=2, max_run_tokens=128, max_queued_tokens=100_000) as embedder:
        return embedder.embed(texts).vectors


@pytest.fixture
def dense_checkpoint(checkpoint: Path) -> Path:
    """Pooled, taken from 32 to 24 dimensions, not normalized."""
    write_modules(checkpoint, "Pooling", "Dense")
    write_dense(checkpoint / "2_Dense", 32, 24)
    return checkpoint


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", TORCH)
def test_a_dense_layer_is_that_of_the_definition(checkpoint: Path, activation: str, bias: bool) -> None:
    """A served vector is activation(weight @ pooled + bias), normalized last: in float64, from the checkpoint."""
    write_modules(checkpoint, "Pooling")
    pooled = serve(export(checkpoint), TEXTS).astype(np.float64)
    write_dense(checkpoint / "2_Dense", 32, 24, activation, bias=bias)
    write_modules(checkpoint, "Pooling", "Dense", "Normalize")
    bundle = export(checkpoint)
    tensors = load_file(checkpoint / "2_Dense" / "model.safetensors")
    weight, zeros = tensors["linear.weight"].astype(np.float64), np.zeros(24)
    expected = dense(pooled, weight, tensors.get("linear.bias", zeros).astype(np.float64), activation)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert bundle.manifest.dimensions == 24
    np.testing.assert_allclose(serve(bundle, TEXTS), expected, atol=1e-5)


def test_layers_follow_one_another(checkpoint: Path) -> None:
    """Two kinds of pooling and two layers: 64 components, then 48, then 8."""
    write_modules(checkpoint, "Pooling", "Dense", "Dense")
    write_json(checkpoint / "1_Pooling" / "config.json", {"pooling_mode": ["cls", "mean"]})
    write_dense(checkpoint / "2_Dense", 64, 48, "relu")
    write_dense(checkpoint / "3_Dense", 48, 8, "identity")
    bundle = export(checkpoint)
    assert [layer.outputs for layer in bundle.manifest.dense] == [48, 8]
    vectors = serve(bundle, TEXTS)
    assert vectors.shape == (4, 8)
    np.testing.assert_allclose(vectors, embed_golden(bundle, TEXTS), atol=1e-5)


def test_bits_do_not_depend_on_company(dense_checkpoint: Path) -> None:
    """A text alone has the bits that it has among 300 others, many of its length."""
    texts = corpus(300)
    bundle = export(dense_checkpoint)
    together = serve(bundle, texts)
    with Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=100_000) as embedder:
        for text, vector in zip(texts[:60], together[:60], strict=True):
            assert embedder.embed([text]).vectors[0].tobytes() == vector.tobytes()


@settings(max_examples=60)
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 400),
    outputs=st.integers(1, 400),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_row_has_the_same_bits_in_any_batch(
    rows: int, inputs: int, outputs: int, activation: DenseActivation, seed: int
) -> None:
    """Whatever the sizes, odd ones above all, a row of a batch is that row alone."""
    rng = np.random.default_rng(seed)
    weight, bias, vectors = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((outputs, inputs), (outputs,), (rows, inputs))
    )
    layers = [DenseLayer(weight, bias, activation)]
    together = apply_dense(vectors, layers)
    assert together.shape == (rows, outputs)
    assert together.dtype == np.float32
    for number in range(rows):
        assert apply_dense(vectors[number : number + 1].copy(), layers).tobytes() == together[number].tobytes()


def test_int8_has_the_same_layers(dense_checkpoint: Path) -> None:
    """The graph in 8 bits is followed by the same layers, in float32, and its vectors stay near."""
    bundle = export(dense_checkpoint, int8=True)
    exact, rounded = serve(bundle, TEXTS), serve(bundle.at(Precision.INT8), TEXTS)
    assert rounded.shape == exact.shape
    np.testing.assert_allclose(rounded, exact, atol=0.2)


def test_same_checkpoint_same_bytes(dense_checkpoint: Path) -> None:
    """Two exports of one checkpoint agree in every byte; other weights of the layer are another meaning."""
    one, two = export(dense_checkpoint, "one"), export(dense_checkpoint, "two")
    for file in ("dense.npz", "golden.npz"):
        assert (one.path / file).read_bytes() == (two.path / file).read_bytes()
    assert one.manifest.fingerprint == two.manifest.fingerprint
    tensors = load_file(dense_checkpoint / "2_Dense" / "model.safetensors")
    tensors["linear.bias"][0] += 1
    save_file(tensors, dense_checkpoint / "2_Dense" / "model.safetensors")
    assert export(dense_checkpoint, "three").manifest.fingerprint != one.manifest.fingerprint


def test_a_damaged_layer_is_found(dense_checkpoint: Path) -> None:
    """bundle.json vouches for dense.npz: a changed byte, and a file that is not there, are refused by name."""
    bundle = export(dense_checkpoint)
    assert bundle == load_bundle(bundle.path)
    file = bundle.path / "dense.npz"
    content = bytearray(file.read_bytes())
    content[-500] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptBundleError, match=r"dense\.npz has changed"):
        load_bundle(bundle.path)
    file.unlink()
    with pytest.raises(CorruptBundleError, match=r"dense\.npz cannot be read"):
        load_bundle(bundle.path)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"weight0": np.zeros((24, 32), np.float32)}, "cannot be read"),
        ({"weight0": np.zeros((24, 31), np.float32), "bias0": np.zeros(24, np.float32)}, "not what its manifest says"),
        ({"weight0": np.zeros((24, 32), np.float32), "bias0": np.zeros(24, np.float32)}, "not what its manifest says"),
    ],
)
def test_layers_that_contradict_the_manifest_are_refused(
    dense_checkpoint: Path, arrays: dict[str, Any], complaint: str
) -> None:
    """What a vector means is what the manifest says, or nothing is served."""
    bundle = export(dense_checkpoint)
    np.savez(bundle.path / "dense.npz", **arrays)
    with pytest.raises(CorruptBundleError, match=complaint):
        bundle.dense()


def config(**changes: object) -> Callable[[Path], None]:
    """Other settings of the layer; None removes one."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
        write_json(folder / "config.json", {key: value for key, value in content.items() if value is not None})

    return apply


def tensors(**changes: F32) -> Callable[[Path], None]:
    """Other tensors of the layer, by the last part of their names."""

    def apply(folder: Path) -> None:
        content = load_file(folder / "model.safetensors") | {f"linear.{name}": each for name, each in changes.items()}
        save_file(content, folder / "model.safetensors")

    return apply


def test_a_layer_in_a_file_of_pytorch_is_the_same(dense_checkpoint: Path) -> None:
    """As older models have it; the fingerprint does not move with the file."""
    before = export(dense_checkpoint, "before").manifest
    path = dense_checkpoint / "2_Dense" / "model.safetensors"
    save(path.with_name("pytorch_model.bin"), {name: tensor(each) for name, each in load_file(path).items()})
    path.unlink()
    after = export(dense_checkpoint).manifest
    assert (after.dense, after.fingerprint) == (before.dense, before.fingerprint)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (config(in_features=31), "in_features 31, and what comes before it gives 32"),
        (config(out_features=23), r"linear\.weight has shape \(24, 32\), by the configuration it is \(23, 32\)"),
        (config(out_features="24"), "out_features '24', not a number"),
        (config(out_features=None), "out_features None, not a number"),
        (config(activation_function="torch.nn.modules.activation.GELU"), "GELU', supported are Identity, Tanh, ReLU"),
        (config(activation_function="mycode.Tanh"), "'mycode.Tanh', supported are"),
        (config(bias="yes"), "bias 'yes'"),
        (config(bias=False), r"has a tensor linear\.bias of shape \(24,\), which no Dense of this configuration has"),
        (config(use_residual=True), "use_residual True"),
        (config(module_input_name="token_embeddings"), "module_input_name 'token_embeddings'"),
        (config(module_output_name="other"), "module_output_name 'other'"),
        (config(gate="sigmoid"), "has gate, which is not supported"),
        (tensors(scale=np.zeros(3, np.float32)), r"has a tensor linear\.scale"),
        (tensors(bias=np.zeros(24, np.int8)), r"linear\.bias has type I8"),
        (tensors(bias=np.full(24, np.nan, np.float32)), "not finite"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "config.json").unlink(), "2_Dense/config.json is missing"),
    ],
)
def test_refuses_a_layer_that_it_would_get_wrong(
    dense_checkpoint: Path, change: Callable[[Path], None], complaint: str
) -> None:
    """The error names the setting or the tensor, and no bundle appears."""
    change(dense_checkpoint / "2_Dense")
    with pytest.raises(UnusableCheckpointError, match=complaint):
        export(dense_checkpoint)
    assert not (dense_checkpoint.parent / "tiny").exists()


def test_reads_what_newer_releases_write(dense_checkpoint: Path) -> None:
    """Settings that say what holds anyway are taken, absent ones are Tanh and a bias, half precision is widened."""
    expected = export(dense_checkpoint, "one").manifest
    folder = dense_checkpoint / "2_Dense"
    config(module_input_name="sentence_embedding", module_output_name="sentence_embedding", use_residual=False)(folder)
    assert export(dense_checkpoint, "two").manifest.fingerprint == expected.fingerprint
    config(bias=None, activation_function=None)(folder)
    assert export(dense_checkpoint, "three").manifest.fingerprint == expected.fingerprint
    content = {name: each.astype(np.float16) for name, each in load_file(folder / "model.safetensors").items()}
    save_file(content, folder / "model.safetensors")
    assert export(dense_checkpoint, "four").dense()[0].weight.dtype == np.float32
