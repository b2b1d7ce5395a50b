"""Tiny random checkpoints of BERT's relatives, as their authors' code writes them, each beside its NumPy twin.

Names and shapes are spelt out here once more, so that a mistake in the exporter's descriptions is found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from nearshore.records import F32
from tests import numpy_encoders
from tests.tiny_bert import make_tokenizer, vocabulary, write_json

H, WIDE, HEADS, LAYERS, POSITIONS = 32, 48, 4, 3, 72  # hidden size, intermediate size ...
V, NARROW = len(vocabulary()), 24
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Relative:
    """One architecture, tiny."""

    config: Mapping[str, Any]
    shapes: Shapes
    forward: numpy_encoders.Forward
    epsilon: float = 1e-12
    types: int = 2  # token types that a text may have

    @property
    def longest_text(self) -> int:
        """Tokens."""
        return POSITIONS - (2 if self.config["model_type"] in {"roberta", "mpnet"} else 0)


def linear(name: str, outputs: int, inputs: int, *, biased: bool = True) -> Shapes:
    """Shapes of a linear layer."""
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if biased else {})


def norm(name: str, width: int = H, *, biased: bool = True) -> Shapes:
    """Shapes of a layer normalization."""
    shapes: Shapes = {f"{name}.weight": (width,)}
    return shapes | ({f"{name}.bias": (width,)} if biased else {})


def tables(width: int = H, types: int = 0, *, positions: bool = True) -> Shapes:
    """Shapes of BERT's embeddings."""
    shapes: Shapes = {"embeddings.word_embeddings.weight": (V, width)}
    shapes |= {"embeddings.position_embeddings.weight": (POSITIONS, width)} if positions else {}
    return shapes | ({"embeddings.token_type_embeddings.weight": (types, width)} if types else {})


def bert_layers() -> Shapes:
    """Shapes of BERT's layers."""
    shapes: Shapes = {}
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= linear(f"{name}.attention.{part}", H, H)
        shapes |= norm(f"{name}.attention.output.LayerNorm") | linear(f"{name}.intermediate.dense", WIDE, H)
        shapes |= linear(f"{name}.output.dense", H, WIDE) | norm(f"{name}.output.LayerNorm")
    return shapes


def distilbert_layers() -> Shapes:
    shapes: Shapes = {}
    for layer in range(LAYERS):
        name = f"transformer.layer.{layer}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= linear(f"{name}.attention.{part}", H, H)
        shapes |= norm(f"{name}.sa_layer_norm") | norm(f"{name}.output_layer_norm")
        shapes |= linear(f"{name}.ffn.lin1", WIDE, H) | linear(f"{name}.ffn.lin2", H, WIDE)
    return shapes


def albert_layers(groups: int) -> Shapes:
    shapes = linear("encoder.embedding_hidden_mapping_in", H, NARROW)
    for group in range(groups):
        name = f"encoder.albert_layer_groups.{group}.albert_layers.0"
        for part in ("query", "key", "value", "dense"):
            shapes |= linear(f"{name}.attention.{part}", H, H)
        shapes |= norm(f"{name}.attention.LayerNorm") | norm(f"{name}.full_layer_layer_norm")
        shapes |= linear(f"{name}.ffn", WIDE, H) | linear(f"{name}.ffn_output", H, WIDE)
    return shapes


def mpnet_layers() -> Shapes:
    shapes: Shapes = {"encoder.relative_attention_bias.weight": (32, HEADS)}
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part in "qkvo":
            shapes |= linear(f"{name}.attention.attn.{part}", H, H)
        shapes |= norm(f"{name}.attention.LayerNorm") | norm(f"{name}.output.LayerNorm")
        shapes |= linear(f"{name}.intermediate.dense", WIDE, H) | linear(f"{name}.output.dense", H, WIDE)
    return shapes


def modernbert_tensors() -> Shapes:
    shapes: Shapes = {"embeddings.tok_embeddings.weight": (V, H)}
    shapes |= norm("embeddings.norm", biased=False) | norm("final_norm", biased=False)
    for layer in range(LAYERS):
        name = f"layers.{layer}"
        shapes |= norm(f"{name}.attn_norm", biased=False) if layer else {}
        shapes |= linear(f"{name}.attn.Wqkv", 3 * H, H, biased=False) | linear(f"{name}.attn.Wo", H, H, biased=False)
        shapes |= norm(f"{name}.mlp_norm", biased=False)
        shapes |= linear(f"{name}.mlp.Wi", 2 * WIDE, H, biased=False) | linear(f"{name}.mlp.Wo", H, WIDE, biased=False)
    return shapes


def nomic_tensors() -> Shapes:
    """Nomic's code rounds the width of gated layers up to 256."""
    shapes = tables(types=2, positions=False) | norm("emb_ln")
    for layer in range(LAYERS):
        name = f"encoder.layers.{layer}"
        shapes |= linear(f"{name}.attn.Wqkv", 3 * H, H, biased=False)
        shapes |= linear(f"{name}.attn.out_proj", H, H, biased=False)
        for part, outputs, inputs in (("fc11", 256, H), ("fc12", 256, H), ("fc2", H, 256)):
            shapes |= linear(f"{name}.mlp.{part}", outputs, inputs, biased=False)
        shapes |= norm(f"{name}.norm1") | norm(f"{name}.norm2")
    return shapes


_BERT = {
    "hidden_size": H,
    "intermediate_size": WIDE,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": POSITIONS,
    "vocab_size": V,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}

RELATIVES = {
    "bert": Relative(
        {**_BERT, "model_type": "bert", "type_vocab_size": 2},
        tables(types=2) | norm("embeddings.LayerNorm") | bert_layers() | linear("pooler.dense", H, H),
        numpy_encoders.bert,
    ),
    "roberta": Relative(
        {**_BERT, "model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1},
        tables(types=1) | norm("embeddings.LayerNorm") | bert_layers() | linear("pooler.dense", H, H),
        numpy_encoders.roberta,
        types=1,
    ),
    "distilbert": Relative(
        {"model_type": "distilbert", "dim": H, "hidden_dim": WIDE, "n_heads": HEADS, "n_layers": LAYERS,
         "max_position_embeddings": POSITIONS, "vocab_size": V, "activation": "relu"},
        tables() | norm("embeddings.LayerNorm") | distilbert_layers(),
        numpy_encoders.distilbert,
        types=1,
    ),
    "electra": Relative(
        {**_BERT, "model_type": "electra", "type_vocab_size": 2, "embedding_size": NARROW},
        tables(NARROW, types=2) | norm("embeddings.LayerNorm", NARROW) | linear("embeddings_project", H, NARROW)
        | bert_layers(),
        numpy_encoders.electra,
    ),
    "albert": Relative(
        {**_BERT, "model_type": "albert", "type_vocab_size": 2, "embedding_size": NARROW, "hidden_act": "gelu_new",
         "num_hidden_groups": 2, "inner_group_num": 1},
        tables(NARROW, types=2) | norm("embeddings.LayerNorm", NARROW) | albert_layers(2) | linear("pooler", H, H),
        numpy_encoders.albert,
    ),
    "mpnet": Relative(
        {**_BERT, "model_type": "mpnet", "relative_attention_num_buckets": 32, "pad_token_id": 1},
        tables() | norm("embeddings.LayerNorm") | mpnet_layers() | linear("pooler.dense", H, H),
        numpy_encoders.mpnet,
        types=1,
    ),
    "modernbert": Relative(
        {**{key: value for key, value in _BERT.items() if key not in {"hidden_act", "layer_norm_eps"}},
         "model_type": "modernbert", "hidden_activation": "gelu", "norm_eps": 1e-5, "local_attention": 10,
         "global_attn_every_n_layers": 2, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
        modernbert_tensors(),
        numpy_encoders.modernbert,
        epsilon=1e-5,
        types=1,
    ),
    "nomic_bert": Relative(
        {"model_type": "nomic_bert", "n_embd": H, "n_inner": 200, "n_head": HEADS, "n_layer": LAYERS,
         "n_positions": POSITIONS, "vocab_size": V, "activation_function": "swiglu", "layer_norm_epsilon": 1e-12,
         "type_vocab_size": 2, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
         "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "prenorm": False, "causal": False,
         "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"}},
        nomic_tensors(),
        numpy_encoders.nomic_bert,
    ),
}  # fmt: skip


def random_tensors(shapes: Shapes, *, seed: int = 0) -> dict[str, F32]:
    """Random weights, of the size of trained ones so that layers do something."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        norm_weight = len(shape) == 1 and name.endswith(".weight")
        scale = 0.1 if len(shape) == 1 else 1.0 / np.sqrt(H)
        tensors[name] = ((1.0 if norm_weight else 0.0) + scale * rng.standard_normal(shape)).astype(np.float32)
    return tensors


def write_checkpoint(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> Path:
    """Write config.json, model.safetensors and tokenizer.json. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    make_tokenizer(vocabulary()).save(str(folder / "tokenizer.json"))
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    """Change entries of config.json; None removes one."""
    content = json.loads((folder / "config.json").read_text()) | changes
    write_json(folder / "config.json", {key: value for key, value in content.items() if value is not None})
