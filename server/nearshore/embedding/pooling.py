"""From the vectors of a text's tokens to the vector of the text.

There are no masks because there is no padding. Every function here gives a text the same bits whatever shares its
batch: NumPy adds the tokens of a text one after the other, and the components of a vector in an order that depends on
their number only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nearshore.bundle import Pooling
from nearshore.records import F32

_SMALLEST_NORM = np.float32(1e-12)  # as in torch.nn.functional.normalize: a zero vector stays one


def pool(hidden: F32, pooling: Sequence[Pooling]) -> F32:
    """Make one vector a text: what each kind of pooling gives, side by side.

    hidden (B, T, H), C-contiguous. Returns (B, kinds * H) float32, not normalized.
    """
    vectors = [_POOLINGS[kind](hidden) for kind in pooling]
    return vectors[0] if len(vectors) == 1 else np.concatenate(vectors, axis=1)


def _first(hidden: F32) -> F32:
    return hidden[:, 0, :].copy()


def _last(hidden: F32) -> F32:
    return hidden[:, -1, :].copy()


def _max(hidden: F32) -> F32:
    largest: F32 = np.maximum.reduce(hidden, axis=1)
    largest += np.float32(0)  # of 0 and -0 either is the larger; the sum is 0
    return largest


def _mean(hidden: F32) -> F32:
    mean: F32 = _sum(hidden) / np.float32(hidden.shape[1])
    return mean


def _mean_sqrt_len(hidden: F32) -> F32:
    scaled: F32 = _sum(hidden) / np.sqrt(np.float32(hidden.shape[1]))
    return scaled


def _weighted_mean(hidden: F32) -> F32:
    """Position-weighted mean (Muennighoff, 2022, arXiv:2202.08904)."""
    tokens = hidden.shape[1]
    weights = np.arange(1, tokens + 1, dtype=np.float32)[:, np.newaxis]  # (T, 1)
    return _sum(hidden * weights) / np.float32(tokens * (tokens + 1) // 2)


def _sum(hidden: F32) -> F32:
    total: F32 = np.add.reduce(hidden, axis=1)
    return total


_POOLINGS: Mapping[Pooling, Callable[[F32], F32]] = {
    Pooling.CLS: _first,
    Pooling.MAX: _max,
    Pooling.MEAN: _mean,
    Pooling.MEAN_SQRT_LEN: _mean_sqrt_len,
    Pooling.WEIGHTED_MEAN: _weighted_mean,
    Pooling.LAST: _last,
}


def normalize(vectors: F32) -> F32:
    """Scale every row to unit length.

    vectors (B, H), C-contiguous. Returns (B, H) float32.
    """
    norms: F32 = np.sqrt(np.add.reduce(vectors * vectors, axis=1, keepdims=True))  # (B, 1)
    result: F32 = np.divide(vectors, np.maximum(norms, _SMALLEST_NORM))
    return result
