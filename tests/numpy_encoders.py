"""The forward passes of BERT's relatives in plain NumPy and float64, to compare exported graphs with.

Written from the papers and the behaviour of the reference implementations, independently of the exporter: rotary
positions are multiplications of complex numbers, relative ones a loop over pairs of tokens. Every function takes the
tensors of a checkpoint under their full names, its configuration, and ids and mask (B, S), and gives all hidden
states: the embeddings, then each layer's output, the last being the sequence output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.numpy_bert import F64, I64, gelu, gelu_tanh

Config = Mapping[str, Any]
Forward = Callable[["Tensors", Config, I64, I64, I64], list[F64]]


class Tensors:
    """A checkpoint's tensors, and what is done with them."""

    def __init__(self, tensors: Mapping[str, Any], epsilon: float) -> None:
        self.tensors = {name: np.asarray(tensor, dtype=np.float64) for name, tensor in tensors.items()}
        self.epsilon = epsilon

    def __getitem__(self, name: str) -> F64:
        return self.tensors[name]

    def dense(self, name: str, inputs: F64) -> F64:
        """A linear layer, with its bias if it has one."""
        outputs: F64 = inputs @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", np.zeros(1))
        return outputs

    def norm(self, name: str, inputs: F64) -> F64:
        """Layer normalization, with its bias if it has one."""
        centered = inputs - inputs.mean(axis=-1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + self.epsilon)
        outputs: F64 = scaled * self.tensors[f"{name}.weight"] + self.tensors.get(f"{name}.bias", np.zeros(1))
        return outputs


def attention(query: F64, key: F64, value: F64, mask: I64, bias: F64 | float = 0.0) -> F64:
    """Softmax(q k' / sqrt(d) + bias) v over (B, heads, S, d); bias broadcasts to (B, heads, S, S)."""
    scores = query @ key.swapaxes(2, 3) / math.sqrt(query.shape[-1]) + bias
    scores = np.where(mask[:, None, None, :] == 1, scores, -1e9)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context: F64 = (weights / weights.sum(axis=-1, keepdims=True)) @ value
    return context


def split_heads(vectors: F64, heads: int) -> F64:
    """(B, S, H) to (B, heads, S, d)."""
    texts, length, width = vectors.shape
    return vectors.reshape(texts, length, heads, width // heads).swapaxes(1, 2)


def merge_heads(vectors: F64) -> F64:
    """(B, heads, S, d) to (B, S, H)."""
    texts, heads, length, size = vectors.shape
    return vectors.swapaxes(1, 2).reshape(texts, length, heads * size)


def self_attention(
    tensors: Tensors, names: list[str], hidden: F64, mask: I64, heads: int, bias: F64 | float = 0.0
) -> F64:
    """Attention with separate projections of queries, keys and values, merged."""
    query, key, value = (split_heads(tensors.dense(name, hidden), heads) for name in names)
    return merge_heads(attention(query, key, value, mask, bias))


def positions_after_padding(ids: I64, padding: int) -> I64:
    """fairseq's: tokens that are not padding count from padding + 1, padding has its own position."""
    positions = np.empty_like(ids)
    for row, text in enumerate(ids):
        count = padding
        for column, token in enumerate(text):
            count += token != padding
            positions[row, column] = count if token != padding else padding
    return positions


def bert(tensors: Tensors, config: Config, ids: I64, mask: I64, types: I64) -> list[F64]:
    return bert_layers(tensors, config, bert_embeddings(tensors, ids, types), mask)


def roberta(tensors: Tensors, config: Config, ids: I64, mask: I64, types: I64) -> list[F64]:
    hidden = tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.token_type_embeddings.weight"][0]
    positions = positions_after_padding(ids, config["pad_token_id"])
    hidden = tensors.norm("embeddings.LayerNorm", hidden + tensors["embeddings.position_embeddings.weight"][positions])
    return bert_layers(tensors, config, hidden, mask)


def electra(tensors: Tensors, config: Config, ids: I64, mask: I64, types: I64) -> list[F64]:
    hidden = bert_embeddings(tensors, ids, types)
    return bert_layers(tensors, config, tensors.dense("embeddings_project", hidden), mask)


def bert_embeddings(tensors: Tensors, ids: I64, types: I64) -> F64:
    hidden = tensors["embeddings.word_embeddings.weight"][ids]
    hidden = hidden + tensors["embeddings.token_type_embeddings.weight"][types]
    hidden = hidden + tensors["embeddings.position_embeddings.weight"][: ids.shape[1]]
    return tensors.norm("embeddings.LayerNorm", hidden)


def bert_layers(tensors: Tensors, config: Config, hidden: F64, mask: I64, bias: F64 | float = 0.0) -> list[F64]:
    states = [hidden]
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        names = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        attended = self_attention(tensors, names, hidden, mask, config["num_attention_heads"], bias)
        attended = tensors.dense(f"{name}.attention.output.dense", attended)
        hidden = tensors.norm(f"{name}.attention.output.LayerNorm", hidden + attended)
        wide = gelu(tensors.dense(f"{name}.intermediate.dense", hidden))
        hidden = tensors.norm(f"{name}.output.LayerNorm", hidden + tensors.dense(f"{name}.output.dense", wide))
        states.append(hidden)
    return states


def distilbert(tensors: Tensors, config: Config, ids: I64, mask: I64, types: I64) -> list[F64]:
    hidden = tensors["embeddings.word_embeddings.weight"][ids]
    hidden = hidden + tensors["embeddings.position_embeddings.weight"][: ids.shape[1]]
    hidden = tensors.norm("embeddings.LayerNorm", hidden)
    states = [hidden]
    for layer in range(config["n_layers"]):
        name = f"transformer.layer.{layer}"
        names = [f"{name}.attention.{part}" for part in ("q_lin", "k_lin", "v_lin")]
        attended = self_attention(tensors, names, hidden, mask, config["n_heads"])
        attended = tensors.dense(f"{name}.attention.out_lin", attended)
        hidden = tensors.norm(f"{name}.sa_layer_norm", hidden + attended)
        wide = np.maximum(tensors.dense(f"{name}.ffn.lin1", hidden), 0)  # this one has relu
        hidden = tensors.norm(f"{name}.output_layer_norm", hidden + tensors.dense(f"{name}.ffn.lin2", wide))
        states.append(hidden)
    return states


def albert(tensors: Tensors, config: Config, ids: I64, mask: I64, types: I64) -> list[F64]:
    hidden = tensors.dense("encoder.embedding_hidden_mapping_in", bert_embeddings(tensors, ids, types))
    states = [hidden]
    for layer in range(config["num_hidden_layers"]):
        group = int(layer / (config["num_hidden_layers"] / config["num_hidden_groups"]))
        name = f"encoder.albert_layer_groups.{group}.albert_layers.0"
        names = [f"{name}.attention.{part}" for part in ("query", "key", "value")]
        attended = self_attention(tensors, names, hidden, mask, config["num_attention_heads"])
        attended = tensors.dense(f"{name}.attention.dense", attended)
        hidden = tensors.norm(f"{name}.attention.LayerNorm", hidden + attended)
        wide = gelu_tanh(tensors.dense(f"{name}.ffn", hidden))
        hidden = tensors.norm(f"{name}.full_layer_layer_norm", hidden + tensors.dense(f"{name}.ffn_output", wide))
        states.append(hidden)
    return states


def mpnet(tensors: Tensors, config: Config, ids: I64, mask: I64, types: I64) -> list[F64]:
    hidden = tensors["embeddings.word_embeddings.weight"][ids]
    hidden = hidden + tensors["embeddings.position_embeddings.weight"][positions_after_padding(ids, 1)]
    hidden = tensors.norm("embeddings.LayerNorm", hidden)
    length, heads = ids.shape[1], config["num_attention_heads"]
    bias = np.empty((1, heads, length, length))
    for row in range(length):
        for column in range(length):
            bias[0, :, row, column] = tensors["encoder.relative_attention_bias.weight"][t5_bucket(column - row)]
    states = [hidden]
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        names = [f"{name}.attention.attn.{part}" for part in "qkv"]
        attended = self_attention(tensors, names, hidden, mask, heads, bias)
        attended = tensors.dense(f"{name}.attention.attn.o", attended)
        hidden = tensors.norm(f"{name}.attention.LayerNorm", hidden + attended)
        wide = gelu(tensors.dense(f"{name}.intermediate.dense", hidden))
        hidden = tensors.norm(f"{name}.output.LayerNorm", hidden + tensors.dense(f"{name}.output.dense", wide))
        states.append(hidden)
    return states


def t5_bucket(distance: int) -> int:
    """Raffel et al. (2020), bidirectional, 32 buckets: 8 exact ones a side, the rest logarithmic up to 128."""
    side = 16 if distance > 0 else 0
    away = abs(distance)
    if away < 8:
        return side + away
    # log2(away / 8) * 2 without rounding: how many half-octaves away is beyond 8
    halves = len([step for step in range(1, 9) if away**2 >= 64 * 2**step])
    return side + min(8 + halves, 15)


def rotate(vectors: F64, base: float) -> F64:
    """Su et al. (2021): the pair (i, i + d / 2) of position p turned by p / base^(2 i / d). (B, heads, S, d)."""
    length, size = vectors.shape[2:]
    half = size // 2
    angles = np.outer(np.arange(length), base ** (-2.0 * np.arange(half) / size))
    turned = (vectors[..., :half] + 1j * vectors[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def modernbert(tensors: Tensors, config: Config, ids: I64, mask: I64, types: I64) -> list[F64]:
    hidden = tensors.norm("embeddings.norm", tensors["embeddings.tok_embeddings.weight"][ids])
    numbers, heads = np.arange(ids.shape[1]), config["num_attention_heads"]
    far = np.abs(numbers[:, None] - numbers[None, :]) > config["local_attention"] / 2
    states = [hidden]
    for layer in range(config["num_hidden_layers"]):
        name = f"layers.{layer}"
        local = layer % config["global_attn_every_n_layers"] != 0
        base = config["local_rope_theta"] if local else config["global_rope_theta"]
        normal = hidden if layer == 0 else tensors.norm(f"{name}.attn_norm", hidden)
        query, key, value = (
            split_heads(part, heads) for part in np.split(tensors.dense(f"{name}.attn.Wqkv", normal), 3, axis=-1)
        )
        bias = np.where(far, -1e6, 0.0) if local else 0.0
        context = merge_heads(attention(rotate(query, base), rotate(key, base), value, mask, bias))
        hidden = hidden + tensors.dense(f"{name}.attn.Wo", context)
        first, second = np.split(tensors.dense(f"{name}.mlp.Wi", tensors.norm(f"{name}.mlp_norm", hidden)), 2, axis=-1)
        hidden = hidden + tensors.dense(f"{name}.mlp.Wo", gelu(first) * second)
        states.append(hidden)
    return [*states[:-1], tensors.norm("final_norm", hidden)]


def nomic_bert(tensors: Tensors, config: Config, ids: I64, mask: I64, types: I64) -> list[F64]:
    hidden = tensors["embeddings.word_embeddings.weight"][ids]
    hidden = tensors.norm("emb_ln", hidden + tensors["embeddings.token_type_embeddings.weight"][types])
    base, heads = config["rotary_emb_base"], config["n_head"]
    gate = {"swiglu": silu, "geglu": gelu, "reglu": relu}[config["activation_function"]]
    states = [hidden]
    for layer in range(config["n_layer"]):
        name = f"encoder.layers.{layer}"
        query, key, value = (
            split_heads(part, heads) for part in np.split(tensors.dense(f"{name}.attn.Wqkv", hidden), 3, axis=-1)
        )
        context = merge_heads(attention(rotate(query, base), rotate(key, base), value, mask))
        hidden = tensors.norm(f"{name}.norm1", hidden + tensors.dense(f"{name}.attn.out_proj", context))
        wide = tensors.dense(f"{name}.mlp.fc11", hidden) * gate(tensors.dense(f"{name}.mlp.fc12", hidden))
        hidden = tensors.norm(f"{name}.norm2", hidden + tensors.dense(f"{name}.mlp.fc2", wide))
        states.append(hidden)
    return states


def silu(x: F64) -> F64:
    """Elfwing et al. (2018)."""
    result: F64 = x / (1 + np.exp(-x))
    return result


def relu(x: F64) -> F64:
    return np.maximum(x, 0)


def mean(hidden: F64, mask: I64) -> F64:
    """The mean of the vectors of real tokens: (B, S, H) to (B, H)."""
    result: F64 = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return result
