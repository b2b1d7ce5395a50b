"""From token vectors to text vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.bundle import Pooling
from nearshore.embedding.pooling import normalize, pool
from nearshore.records import F32


def hidden_of(texts: int, tokens: int, width: int, seed: int) -> F32:
    """Random token vectors of very different sizes, so that the order of additions shows."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((texts, tokens, width)) * 10.0 ** rng.integers(-4, 4, (texts, tokens, width))
    return values.astype(np.float32)


@settings(max_examples=100)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 400), st.sampled_from(Pooling), st.integers(0, 2**32 - 1))
def test_a_text_has_the_same_bits_in_any_batch(
    texts: int, tokens: int, width: int, pooling: Pooling, seed: int
) -> None:
    """Pooling and normalization of a batch are those of each text alone, bit for bit."""
    hidden = hidden_of(texts, tokens, width, seed)
    together = normalize(pool(hidden, pooling))
    for number in range(texts):
        alone = normalize(pool(hidden[number : number + 1].copy(), pooling))
        assert alone.tobytes() == together[number].tobytes()


def test_mean_is_the_average_of_all_tokens() -> None:
    """Mean pooling agrees with float64 arithmetic to float32 precision."""
    hidden = np.random.default_rng(1).standard_normal((3, 50, 384)).astype(np.float32)
    np.testing.assert_allclose(pool(hidden, Pooling.MEAN), hidden.astype(np.float64).mean(axis=1), atol=1e-6)


def test_cls_is_the_first_token() -> None:
    """CLS pooling takes the first token's vector, in memory of its own."""
    hidden = hidden_of(3, 5, 8, 0)
    pooled = pool(hidden, Pooling.CLS)
    np.testing.assert_array_equal(pooled, hidden[:, 0])
    assert not np.shares_memory(pooled, hidden)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_normalized_vectors_have_unit_length(scale: float) -> None:
    """Whatever the length before, it is one afterwards, in float32."""
    vectors = normalize(hidden_of(4, 1, 384, 2)[:, 0] * np.float32(scale))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)


def test_a_zero_vector_stays_zero() -> None:
    """No division by zero: a vector without direction is left alone."""
    np.testing.assert_array_equal(normalize(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))
