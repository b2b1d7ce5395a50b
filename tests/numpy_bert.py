"""BERT's forward pass in plain NumPy and float64, to compare the exported graph with.

Written from Devlin et al. (2019) and Vaswani et al. (2017), independently of the exporter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


class NumpyBert:
    """A BertModel over tensors with Hugging Face's names and a config.json."""

    def __init__(self, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self.tensors = {name: np.asarray(tensor, dtype=np.float64) for name, tensor in tensors.items()}
        self.layers = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.epsilon = float(config["layer_norm_eps"])
        self.gelu = {"gelu": gelu, "gelu_new": gelu_tanh}[config["hidden_act"]]

    def sequence_output(self, ids: I64, mask: I64, types: I64) -> F64:
        """Last hidden states (B, S, H) of ids, mask and token types (B, S)."""
        table = self.tensors
        hidden = table["embeddings.word_embeddings.weight"][ids]
        hidden = hidden + table["embeddings.position_embeddings.weight"][: ids.shape[1]]
        hidden = self._norm("embeddings.LayerNorm", hidden + table["embeddings.token_type_embeddings.weight"][types])
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            attended = self._dense(
                f"{name}.attention.output.dense", self._attend(f"{name}.attention.self", hidden, mask)
            )
            hidden = self._norm(f"{name}.attention.output.LayerNorm", hidden + attended)
            wide = self.gelu(self._dense(f"{name}.intermediate.dense", hidden))
            hidden = self._norm(f"{name}.output.LayerNorm", hidden + self._dense(f"{name}.output.dense", wide))
        return hidden

    def pooled_output(self, sequence_output: F64) -> F64:
        """(B, S, H) to (B, H)."""
        pooled: F64 = np.tanh(self._dense("pooler.dense", sequence_output[:, 0]))
        return pooled

    def _attend(self, name: str, hidden: F64, mask: I64) -> F64:
        texts, length, width = hidden.shape
        size = width // self.heads

        def heads(part: str) -> F64:
            return self._dense(f"{name}.{part}", hidden).reshape(texts, length, self.heads, size).swapaxes(1, 2)

        scores = heads("query") @ heads("key").swapaxes(2, 3) / math.sqrt(size)
        scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        context: F64 = (weights @ heads("value")).swapaxes(1, 2).reshape(texts, length, width)
        return context

    def _dense(self, name: str, inputs: F64) -> F64:
        outputs: F64 = inputs @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
        return outputs

    def _norm(self, name: str, inputs: F64) -> F64:
        centered = inputs - inputs.mean(axis=-1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + self.epsilon)
        outputs: F64 = scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return outputs


def gelu(x: F64) -> F64:
    """Hendrycks and Gimpel (2016), exact."""
    result: F64 = 0.5 * x * (1 + _erf(x / math.sqrt(2)))
    return result


def gelu_tanh(x: F64) -> F64:
    """Its tanh approximation."""
    result: F64 = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return result
