"""Each architecture's graph computes what its paper says, and what is not understood is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file

from nearshore.bundle import Bundle
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.graph.attention import relative_buckets
from tests.numpy_bert import I64
from tests.numpy_encoders import Tensors, t5_bucket
from tests.tiny_bert import embed_golden, write_json
from tests.tiny_encoders import (
    HEADS,
    NARROW,
    RELATIVES,
    H,
    V,
    albert_layers,
    edit_config,
    norm,
    random_tensors,
    tables,
    write_checkpoint,
)

TOLERANCE = 2e-5


def checkpoint(folder: Path, name: str) -> Path:
    relative = RELATIVES[name]
    return write_checkpoint(folder / "checkpoint", relative.config, random_tensors(relative.shapes))


def export(folder: Path) -> Bundle:
    return export_bundle(folder, folder.parent / "bundle", name="tiny", embed_golden=embed_golden)


def run(bundle: Bundle, ids: I64, mask: I64, types: I64) -> Any:
    """The sequence output."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return session.run(["sequence_output"], {name: every[name] for name in bundle.manifest.inputs})[0]


def batch(rng: np.random.Generator, texts: int, length: int, types: int) -> tuple[I64, I64, I64]:
    """Random ids, padding behind texts of random length, and token types. Padding is 1, as RoBERTa has it."""
    ids = rng.integers(2, V, (texts, length))
    mask = (np.arange(length) < rng.integers(1, length + 1, (texts, 1))).astype(np.int64)
    return np.where(mask == 1, ids, 1), mask, rng.integers(0, types, (texts, length))


@pytest.mark.parametrize("name", RELATIVES)
def test_agrees_with_numpy(tmp_path: Path, name: str) -> None:
    """The sequence output of padded batches of all lengths is that of a plain NumPy forward pass."""
    relative = RELATIVES[name]
    folder = checkpoint(tmp_path, name)
    bundle = export(folder)
    assert bundle.manifest.architecture == name
    tensors = Tensors(load_file(folder / "model.safetensors"), relative.epsilon)
    rng = np.random.default_rng(1)
    for texts, length in ((1, 1), (1, 2), (3, 7), (4, 33), (2, relative.longest_text)):
        ids, mask, types = batch(rng, texts, length, relative.types)
        found = run(bundle, ids, mask, types)
        expected = relative.forward(tensors, relative.config, ids, mask, types)[-1]
        np.testing.assert_allclose(found[mask == 1], expected[mask == 1], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", RELATIVES)
def test_company_moves_no_bit(tmp_path: Path, name: str) -> None:
    """Each text of a run of equally long texts gets bit for bit what it gets alone."""
    bundle = export(checkpoint(tmp_path, name))
    ids = np.random.default_rng(2).integers(2, V, (5, 24))
    mask, types = np.ones_like(ids), np.zeros_like(ids)
    together = run(bundle, ids, mask, types)
    for row in range(5):
        alone = run(bundle, ids[row : row + 1], mask[:1], types[:1])
        assert alone[0].tobytes() == together[row].tobytes()


@pytest.mark.parametrize("name", RELATIVES)
def test_a_model_with_heads_gives_the_same_graph(tmp_path: Path, name: str) -> None:
    """Names with the prefix of a model with heads, and heads that are not asked for, change nothing."""
    folder = checkpoint(tmp_path, name)
    plain = export(folder).manifest.files["model.onnx"]
    prefix = {"modernbert": "model.", "nomic_bert": "bert."}.get(name, f"{name}.")
    tensors = {f"{prefix}{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file({**tensors, "classifier.weight": np.zeros((2, H), np.float32)}, folder / "model.safetensors")
    assert export(folder).manifest.files["model.onnx"] == plain


def test_limits_follow_from_positions(tmp_path: Path) -> None:
    """RoBERTa's first position is the one after padding's, so its texts are shorter than its table."""
    assert export(checkpoint(tmp_path, "roberta")).manifest.max_tokens == 70


def test_buckets_are_those_of_t5() -> None:
    """Every distance up to 600 tokens has the bucket that exact arithmetic gives."""
    distances = np.arange(-600, 601)
    assert relative_buckets(distances).tolist() == [t5_bucket(int(distance)) for distance in distances]


def test_layers_of_a_group_share_their_constants(tmp_path: Path) -> None:
    """ALBERT's graph holds each group's tensors once."""
    small = export(checkpoint(tmp_path, "albert")).model_path.stat().st_size
    edit_config(tmp_path / "checkpoint", num_hidden_layers=6)
    assert export(tmp_path / "checkpoint").model_path.stat().st_size < small + 10_000


def test_layers_are_grouped_as_alberts_code_rounds(tmp_path: Path) -> None:
    """Where groups do not divide layers, a layer at the edge belongs to the group that floating point gives it."""
    relative = RELATIVES["albert"]
    settings = {**relative.config, "num_hidden_layers": 18, "num_hidden_groups": 14}
    folder = write_checkpoint(tmp_path / "checkpoint", settings, random_tensors(tables(NARROW, types=2)
        | norm("embeddings.LayerNorm", NARROW) | albert_layers(14)))  # fmt: skip
    ids, mask, types = batch(np.random.default_rng(1), 2, 9, 2)
    found = run(export(folder), ids, mask, types)
    tensors = Tensors(load_file(folder / "model.safetensors"), relative.epsilon)
    expected = relative.forward(tensors, settings, ids, mask, types)[-1]
    np.testing.assert_allclose(found[mask == 1], expected[mask == 1], atol=10 * TOLERANCE, rtol=0)


def test_both_spellings_of_modernbert_agree(tmp_path: Path) -> None:
    """Transformers 4 names bases and the interval of global layers, transformers 5 each layer's kind."""
    folder = checkpoint(tmp_path, "modernbert")
    old = export(folder).manifest
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    rope = {"full_attention": {"rope_type": "default", "rope_theta": 160000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}  # fmt: skip
    removed = dict.fromkeys(("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"))
    edit_config(folder, layer_types=kinds, rope_parameters=rope, **removed)
    new = export(folder).manifest
    assert (new.fingerprint, new.files["model.onnx"]) == (old.fingerprint, old.files["model.onnx"])
    for parameters in rope.values():  # as absent ones, null ones have the defaults, which these are
        parameters["rope_theta"] = None
    edit_config(folder, rope_parameters=rope)
    new = export(folder).manifest
    assert (new.fingerprint, new.files["model.onnx"]) == (old.fingerprint, old.files["model.onnx"])


def test_several_files_of_weights_are_one_checkpoint(tmp_path: Path) -> None:
    """Shards that an index names give the same graph, and a fingerprint that covers all of them."""
    folder = checkpoint(tmp_path, "roberta")
    whole = export(folder).manifest
    shard(folder)
    parts = export(folder).manifest
    assert parts.files["model.onnx"] == whole.files["model.onnx"]
    assert parts.source.sha256 != whole.source.sha256
    (folder / "model-00002.safetensors").unlink()
    with pytest.raises(UnusableCheckpointError, match=r"model-00002\.safetensors is missing"):
        export(folder)


def shard(folder: Path) -> None:
    """Replace model.safetensors by two files and their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"model-0000{1 + (number % 2)}.safetensors" for number, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def test_bfloat16_weights_are_widened(tmp_path: Path) -> None:
    """A bfloat16 checkpoint gives the graph of its float32 values."""
    folder = checkpoint(tmp_path, "modernbert")
    halves = {name: value.astype(ml_dtypes.bfloat16) for name, value in load_file(folder / "model.safetensors").items()}
    save_file({name: value.astype(np.float32) for name, value in halves.items()}, folder / "model.safetensors")
    widened = export(folder).manifest.files["model.onnx"]
    save_file(halves, folder / "model.safetensors")
    assert export(folder).manifest.files["model.onnx"] == widened


def config(**changes: object) -> Callable[[Path], None]:
    """A change of config.json."""
    return lambda folder: edit_config(folder, **changes)


def tensors(**changes: Any) -> Callable[[Path], None]:
    """Tensors added or replaced."""

    def apply(folder: Path) -> None:
        save_file({**load_file(folder / "model.safetensors"), **changes}, folder / "model.safetensors")

    return apply


ROPE = {"full_attention": {"rope_type": "yarn"}}
REFUSED = {
    "electra without its projection": ("electra", config(embedding_size=H), "word_embeddings.weight has shape"),
    "albert with inner groups": ("albert", config(inner_group_num=2), "inner_group_num 2, only 1 is"),
    "albert with more groups": ("albert", config(num_hidden_groups=3), r"albert_layer_groups\.2.*query\.weight"),
    "mpnet with other buckets": ("mpnet", config(relative_attention_num_buckets=64), "num_buckets 64"),
    "albert's groups without end": ("albert", config(num_hidden_groups=10**9), "num_hidden_groups: .* to 1000"),
    "layers without end": ("roberta", config(num_hidden_layers=10**9), "num_hidden_layers: .* equal to 1000"),
    "modernbert's layers without end": ("modernbert", config(num_hidden_layers=10**9), "layers: .* equal to 1000"),
    "positions without end": ("nomic_bert", config(n_positions=10**12), "n_positions: .* equal to 131072"),
    "modernbert with biases": ("modernbert", config(attention_bias=True), "attention_bias True, only False"),
    "modernbert with scaled positions": ("modernbert", config(rope_parameters=ROPE), "only rope_type 'default'"),
    "modernbert with unknown layers": ("modernbert", config(layer_types=["full_attention"]), "has layer_types"),
    "modernbert with positions in a list": ("modernbert", config(rope_parameters=[1]), "rope_parameters .* dictionary"),
    "modernbert pooled otherwise": ("modernbert", config(classifier_pooling="max"), "classifier_pooling 'max', only"),
    "modernbert of a wrong type": ("modernbert", config(local_attention="wide"), "local_attention|wrong type"),
    "nomic with experts": ("nomic_bert", config(moe_every_n_layers=2), "moe_every_n_layers 2"),
    "nomic with part of heads rotated": ("nomic_bert", config(rotary_emb_fraction=0.5), "rotary_emb_fraction 0.5"),
    "nomic without gates": ("nomic_bert", config(activation_function="gelu"), "supported are swiglu, geglu"),
    "code of its own": ("roberta", config(auto_map={"AutoModel": "code.Model"}), "code of its own"),
    "quantized": ("roberta", config(quantization_config={"bits": 4}), "quantization_config"),
    "unknown activation": ("roberta", config(hidden_act="mish"), "hidden_act 'mish', supported are gelu"),
    "too few positions": ("roberta", config(max_position_embeddings=3), "3 positions, too few"),
    "architectures that are none": ("roberta", config(architectures=5), "architectures 5, not a list"),
    "unknown model": ("roberta", config(model_type="deberta-v2"), "model_type 'deberta-v2'"),
    "a tensor that nobody knows": (
        "roberta",
        tensors(**{"encoder.layer.0.adapter.weight": np.zeros((2, H), np.float32)}),
        r"has a tensor encoder\.layer\.0\.adapter\.weight of shape \(2, 32\), which no roberta",
    ),
    "a tensor under two names": (
        "roberta",
        tensors(**{"roberta.embeddings.word_embeddings.weight": np.zeros((V, H), np.float32)}),
        r"embeddings\.weight, which is the same as \S*embeddings\.weight of model\.safetensors",
    ),
    "a layer more than the configuration says": ("mpnet", config(num_hidden_layers=2), r"a tensor encoder\.layer\.2"),
    "other heads than the table has": ("mpnet", config(num_attention_heads=2), rf"shape \(32, {HEADS}\), by the"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_it_cannot_export(tmp_path: Path, name: str) -> None:
    """The error names the setting or the tensor, says what to do, and no bundle appears."""
    family, change, complaint = REFUSED[name]
    folder = checkpoint(tmp_path, family)
    change(folder)
    with pytest.raises(UnusableCheckpointError, match=complaint) as caught:
        export(folder)
    assert caught.value.remedy
    assert not (tmp_path / "bundle").exists()
