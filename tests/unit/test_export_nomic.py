"""NomicBERT as transformers 5 writes it is the network that Nomic's own code has under other names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file

from nearshore.bundle import Bundle
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from nearshore.records import F32
from tests.numpy_bert import F64
from tests.numpy_encoders import Tensors, nomic_bert, silu
from tests.tiny_bert import embed_golden
from tests.tiny_encoders import (
    HEADS,
    LAYERS,
    POSITIONS,
    RELATIVES,
    H,
    Shapes,
    V,
    edit_config,
    linear,
    norm,
    random_tensors,
    write_checkpoint,
)

TOLERANCE = 2e-5
CODE = {**RELATIVES["nomic_bert"].config, "n_inner": 256}  # as Nomic's code spells it
ROPE = {"rope_type": "default", "rope_theta": 1000.0}
LIBRARY = {
    "model_type": "nomic_bert", "hidden_size": H, "intermediate_size": 256, "num_attention_heads": HEADS,
    "head_dim": H // HEADS, "num_hidden_layers": LAYERS, "max_position_embeddings": POSITIONS, "vocab_size": V,
    "hidden_act": "silu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "rope_parameters": ROPE,
    "architectures": ["NomicBertModel"], "pad_token_id": 0, "transformers_version": "5.24.0",
}  # fmt: skip
HEAD = linear("cls.predictions.transform.dense", H, H) | norm("cls.predictions.transform.layer_norm")
HEAD |= {"cls.predictions.bias": (V,)}
IDS = np.random.default_rng(1).integers(5, V, (3, 19))
MASK = (np.arange(19) < np.array([[19], [7], [1]])).astype(np.int64)
TYPES = (np.arange(19) > 4).astype(np.int64) * np.ones_like(IDS)


def checkpoint(folder: Path, config: Mapping[str, Any], more: Shapes | None = None, *, prefix: str = "") -> Path:
    """Of the weights that every configuration here is about, with tensors of a head beside."""
    tensors = {f"{prefix}{name}": value for name, value in random_tensors(RELATIVES["nomic_bert"].shapes).items()}
    return write_checkpoint(folder, config, tensors | random_tensors(more or {}, seed=1))


def export(folder: Path, options: ExportOptions | None = None) -> Bundle:
    place = folder.parent / f"{folder.name}.bundle"
    return export_bundle(folder, place, name="tiny", embed_golden=embed_golden, options=options or ExportOptions())


def run(bundle: Bundle, output: str = "sequence_output") -> Any:
    """Of the real tokens: (tokens, ...)."""
    session = ort.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    given = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}
    return session.run([output], {each.name: given[each.name] for each in session.get_inputs()})[0][MASK == 1]


def hidden(folder: Path, config: Mapping[str, Any] = CODE) -> F64:
    """Of the plain forward pass, of the real tokens."""
    tensors = Tensors(load_file(folder / "model.safetensors"), config["layer_norm_epsilon"])
    vectors: F64 = nomic_bert(tensors, config, IDS, MASK, TYPES)[-1][MASK == 1]
    return vectors


def test_both_spellings_give_the_same_bundle(tmp_path: Path) -> None:
    """The graph and the network are the same, byte for byte, and so is the fingerprint."""
    ours, theirs = (export(checkpoint(tmp_path / name, config)).manifest
                    for name, config in (("library", LIBRARY), ("code", CODE)))  # fmt: skip
    assert ours.network == theirs.network
    assert (ours.fingerprint, ours.files["model.onnx"]) == (theirs.fingerprint, theirs.files["model.onnx"])


VARIED: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "gelu": ({"hidden_act": "gelu"}, {"activation_function": "geglu"}),
    "relu": ({"hidden_act": "relu"}, {"activation_function": "reglu"}),
    "theta": ({"rope_parameters": {**ROPE, "rope_theta": 50}}, {"rotary_emb_base": 50}),
    "theta of before transformers 5": ({"rope_parameters": None, "rope_theta": 50}, {"rotary_emb_base": 50}),
    "no theta": ({"rope_parameters": None}, {"rotary_emb_base": 1000}),
    "epsilon": ({"layer_norm_eps": 0.01}, {"layer_norm_epsilon": 0.01}),
    "heads": ({"num_attention_heads": 2, "head_dim": 16}, {"n_head": 2}),
}


@pytest.mark.parametrize("name", VARIED)
def test_each_setting_is_heeded(tmp_path: Path, name: str) -> None:
    """What the library's configuration says is what the plain forward pass computes with the same said to it."""
    ours, plain = VARIED[name]
    folder = checkpoint(tmp_path / "library", LIBRARY)
    edit_config(folder, **ours)
    np.testing.assert_allclose(run(export(folder)), hidden(folder, {**CODE, **plain}), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_the_librarys_language_head_has_biases(tmp_path: Path, tied: bool) -> None:
    """Those of its dense layer and of the vocabulary are added, and an untied decoder has its own weight and bias."""
    own: Shapes = {} if tied else {"cls.predictions.decoder.weight": (V, H), "cls.predictions.decoder.bias": (V,)}
    config = {**LIBRARY, "tie_word_embeddings": tied, "architectures": ["NomicBertForMaskedLM"]}
    folder = checkpoint(tmp_path / "library", config, HEAD | own, prefix="nomic_bert.")
    plain = checkpoint(tmp_path / "plain", config, HEAD | own)
    tensors = Tensors(load_file(plain / "model.safetensors"), 1e-12)
    dense = tensors.dense("cls.predictions.transform.dense", hidden(plain))
    words = tensors["embeddings.word_embeddings.weight" if tied else "cls.predictions.decoder.weight"]
    bias = tensors["cls.predictions.bias" if tied else "cls.predictions.decoder.bias"]
    expected = tensors.norm("cls.predictions.transform.layer_norm", silu(dense)) @ words.T + bias
    found = run(export(folder, ExportOptions(mlm=True)), "mlm_logits")
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_a_checkpoint_that_the_library_loaded_and_saved(tmp_path: Path) -> None:
    """It writes its own names beside those of Nomic's code; texts may be as long as either of them says."""
    folder = checkpoint(tmp_path / "library", {**CODE, **LIBRARY, "max_position_embeddings": 50})
    bundle = export(folder)
    assert bundle.manifest.max_tokens == POSITIONS
    np.testing.assert_allclose(run(bundle), hidden(folder), atol=TOLERANCE, rtol=0)


RENAMED = {
    "emb_ln": "embeddings.LayerNorm",
    "encoder.layers": "layers",
    "attn.out_proj": "self_attn.o_proj",
    "norm1": "post_attention_layernorm",
    "norm2": "post_mlp_layernorm",
    "mlp.fc11": "mlp.up_proj",
    "mlp.fc12": "mlp.gate_proj",
    "mlp.fc2": "mlp.down_proj",
}


@pytest.mark.parametrize("prefix", ["", "nomic_bert."])
def test_names_of_the_library_in_the_weights(tmp_path: Path, prefix: str) -> None:
    """As transformers 5 names tensors in memory, and saves them where it is told to, they give the same vectors."""
    expected = run(export(checkpoint(tmp_path / "library", LIBRARY)))
    tensors: dict[str, F32] = {}
    for code, value in load_file(tmp_path / "library" / "model.safetensors").items():
        name = prefix + reduce(lambda name, names: name.replace(*names), RENAMED.items(), code)
        if "Wqkv" in name:
            for part, third in zip("qkv", np.split(value, 3), strict=True):
                tensors[name.replace("attn.Wqkv", f"self_attn.{part}_proj")] = third
        else:
            tensors[name] = value
    assert f"{prefix}layers.0.self_attn.q_proj.weight" in tensors
    found = run(export(write_checkpoint(tmp_path / "renamed", LIBRARY, tensors)))
    assert (found == expected).all()


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "neither spelling": ({"num_hidden_layers": None}, "lacks num_hidden_layers"),
    "heads of another size": ({"head_dim": 16}, "head_dim 16, only hidden_size divided"),
    "heads of an odd width": ({"num_attention_heads": H, "head_dim": 1}, "has 32 heads of an odd width"),
    "scaled positions": ({"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 2.0}}, "'yarn'.*'default'"),
    "scaled positions of before": ({"rope_parameters": {"type": "linear", "factor": 2.0}}, "'linear'.*'default'"),
    "scaling under its old name": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling .*'dynamic'"),
    "scaled attention": ({"rope_parameters": {**ROPE, "attention_factor": 2.0}}, "rope_parameters .*attention_factor"),
    "a part of heads rotated": ({"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}, "rope_parameters .* 0.5"),
    "a part of heads rotated, of before": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5, only 1.0"),
    "no theta": ({"rope_parameters": {**ROPE, "rope_theta": None}}, "rope_parameters .*None"),
    "positions in a list": ({"rope_parameters": [1]}, "rope_parameters .*not a dictionary"),
    "layers that differ": ({"per_layer_config": {"0": {"layer_norm_eps": 1.0}}}, "per_layer_config"),
    "unknown activation": ({"hidden_act": "mish"}, "hidden_act 'mish', supported are gelu"),
    "no token types, but their table": ({"type_vocab_size": 0}, r"a tensor embeddings\.token_type_embeddings\.weight"),
    "another base in the other spelling": ({**CODE, "rotary_emb_base": 5}, "rope_theta 1000.0 and rotary_emb_base 5"),
    "other heads in the other spelling": ({**CODE, "n_head": 2}, "num_attention_heads 4 and n_head 2"),
    "another gate in the other spelling": ({**CODE, "activation_function": "geglu"}, "hidden_act 'silu' and activ"),
    "half of the other spelling": ({"n_layer": LAYERS}, "lacks n_head"),
    "a setting of the other spelling": ({"prenorm": True}, "prenorm True, only False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_the_graph_cannot_do(tmp_path: Path, name: str) -> None:
    """The error names the key and says what to do, and no bundle appears."""
    changes, complaint = REFUSED[name]
    folder = checkpoint(tmp_path / "library", LIBRARY)
    edit_config(folder, **changes)
    with pytest.raises(UnusableCheckpointError, match=complaint) as caught:
        export(folder)
    assert caught.value.remedy
    assert not (tmp_path / "library.bundle").exists()
