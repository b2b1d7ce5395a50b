"""From the vectors of a text's tokens to the vector of the text.

There are no masks because there is no padding. Every function here gives a text the same bits whatever shares its
batch: NumPy adds the tokens of a text one after the other, and the components of a vector in an order that depends on
their number only.
"""

from __future__ import annotations

import numpy as np

from nearshore.bundle import Pooling
from nearshore.records import F32

_SMALLEST_NORM = np.float32(1e-12)  # as in torch.nn.functional.normalize: a zero vector stays one


def pool(hidden: F32, pooling: Pooling) -> F32:
    """Make one vector a text.

    hidden (B, T, H), C-contiguous. Returns (B, H) float32, not normalized.
    """
    if pooling is Pooling.CLS:
        return hidden[:, 0, :].copy()
    total: F32 = np.add.reduce(hidden, axis=1)
    return total / np.float32(hidden.shape[1])


def normalize(vectors: F32) -> F32:
    """Scale every row to unit length.

    vectors (B, H), C-contiguous. Returns (B, H) float32.
    """
    norms: F32 = np.sqrt(np.add.reduce(vectors * vectors, axis=1, keepdims=True))  # (B, 1)
    result: F32 = np.divide(vectors, np.maximum(norms, _SMALLEST_NORM))
    return result
