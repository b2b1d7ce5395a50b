"""Dense layers behind pooling, as sentence-transformers' module Dense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nearshore.bundle import DenseActivation, DenseLayer
from nearshore.records import F32


def apply_dense(vectors: F32, layers: Sequence[DenseLayer]) -> F32:
    """Take every row through the layers, one after the other: (B, inputs) to (B, outputs of the last) float32.

    A row has the same bits in any company, because each is a product of matrix and vector by itself. In a product of
    two matrices the order of additions depends on the number of rows.
    """
    return np.stack([_apply(vector, layers) for vector in vectors]) if layers else vectors


def _apply(vector: F32, layers: Sequence[DenseLayer]) -> F32:
    for layer in layers:
        vector = _ACTIVATIONS[layer.activation](layer.weight @ vector + layer.bias)
    return vector


def _identity(vector: F32) -> F32:
    return vector


def _relu(vector: F32) -> F32:
    result: F32 = np.maximum(vector, np.float32(0))
    return result


_ACTIVATIONS: Mapping[DenseActivation, Callable[[F32], F32]] = {"identity": _identity, "tanh": np.tanh, "relu": _relu}
