"""From token vectors to text vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.bundle import Pooling
from nearshore.embedding.pooling import normalize, pool
from nearshore.records import F32
from tests.numpy_sentences import POOLINGS


def hidden_of(texts: int, tokens: int, width: int, seed: int) -> F32:
    """Random token vectors of very different sizes, so that the order of additions shows; some are 0 and -0."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((texts, tokens, width)) * 10.0 ** rng.integers(-4, 4, (texts, tokens, width))
    values *= rng.random((texts, tokens, width)) < 0.9
    return values.astype(np.float32)


@settings(max_examples=100)
@given(
    texts=st.integers(1, 40),
    tokens=st.integers(1, 70),
    width=st.integers(1, 400),
    pooling=st.lists(st.sampled_from(Pooling), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_text_has_the_same_bits_in_any_batch(
    texts: int, tokens: int, width: int, pooling: list[Pooling], seed: int
) -> None:
    """Pooling and normalization of a batch are those of each text alone, bit for bit."""
    hidden = hidden_of(texts, tokens, width, seed)
    together = normalize(pool(hidden, pooling))
    for number in range(texts):
        alone = normalize(pool(hidden[number : number + 1].copy(), pooling))
        assert alone.tobytes() == together[number].tobytes()


@pytest.mark.parametrize("kind", Pooling)
@pytest.mark.parametrize("tokens", [1, 2, 50])
def test_each_kind_is_that_of_sentence_transformers(kind: Pooling, tokens: int) -> None:
    """Every kind agrees with its definition in float64, also where that sees the text among longer ones, padded."""
    hidden = np.random.default_rng(1).standard_normal((3, tokens, 384)).astype(np.float32)
    padded = np.pad(hidden.astype(np.float64), ((0, 0), (0, 7), (0, 0)), constant_values=9.0)
    mask = np.pad(np.ones((3, tokens)), ((0, 0), (0, 7)))
    pooled = pool(hidden, [kind])
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, POOLINGS[kind](padded, mask), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", Pooling)
def test_a_pooled_vector_is_not_a_view(kind: Pooling) -> None:
    """Vectors that wait for their request do not keep those of all tokens in memory."""
    hidden = hidden_of(3, 5, 8, 0)
    assert not np.shares_memory(pool(hidden, [kind]), hidden)


def test_several_kinds_stand_side_by_side() -> None:
    """In the order that the bundle says."""
    hidden = hidden_of(3, 5, 8, 0)
    both = pool(hidden, [Pooling.MEAN, Pooling.CLS])
    np.testing.assert_array_equal(both, np.hstack([pool(hidden, [Pooling.MEAN]), pool(hidden, [Pooling.CLS])]))
    assert both.flags.c_contiguous


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_normalized_vectors_have_unit_length(scale: float) -> None:
    """Whatever the length before, it is one afterwards, in float32."""
    vectors = normalize(hidden_of(4, 1, 384, 2)[:, 0] * np.float32(scale))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)


def test_a_zero_vector_stays_zero() -> None:
    """No division by zero: a vector without direction is left alone."""
    np.testing.assert_array_equal(normalize(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))
