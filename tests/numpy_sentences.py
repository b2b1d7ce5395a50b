"""What sentence-transformers makes of the vectors of tokens, in float64, written from its definition.

A padded batch and its mask, as its module Pooling takes them; nearshore never pads, which must come to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def _cls(tokens: F64, mask: F64) -> F64:
    return tokens[:, 0]


def _max(tokens: F64, mask: F64) -> F64:
    largest: F64 = np.where(mask[:, :, None] == 1, tokens, -np.inf).max(axis=1)
    return largest


def _mean(tokens: F64, mask: F64) -> F64:
    pooled: F64 = np.einsum("bth,bt->bh", tokens, mask) / mask.sum(axis=1)[:, None]
    return pooled


def _mean_sqrt_len(tokens: F64, mask: F64) -> F64:
    pooled: F64 = np.einsum("bth,bt->bh", tokens, mask) / np.sqrt(mask.sum(axis=1))[:, None]
    return pooled


def _weighted_mean(tokens: F64, mask: F64) -> F64:
    weights = mask * np.arange(1, tokens.shape[1] + 1)
    pooled: F64 = np.einsum("bth,bt->bh", tokens, weights) / weights.sum(axis=1)[:, None]
    return pooled


def _last_token(tokens: F64, mask: F64) -> F64:
    pooled: F64 = tokens[np.arange(len(tokens)), mask.sum(axis=1).astype(int) - 1]
    return pooled


ACTIVATIONS: Mapping[str, Callable[[F64], F64]] = {
    "identity": lambda x: x,
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "relu": lambda x: np.where(x > 0, x, 0.0),
}


def dense(vectors: F64, weight: F64, bias: F64, activation: str) -> F64:
    """The module Dense: (B, inputs) to (B, outputs); weight (outputs, inputs)."""
    return ACTIVATIONS[activation](np.einsum("bi,oi->bo", vectors, weight) + bias)


POOLINGS: Mapping[str, Callable[[F64, F64], F64]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "last_token": _last_token,
}
"""By nearshore's name."""
