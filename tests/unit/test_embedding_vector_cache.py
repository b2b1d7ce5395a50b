"""The vectors that are kept, and the bytes that they take."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nearshore.embedding.request import key_of
from nearshore.embedding.vector_cache import ENTRY_BYTES, VectorCache

MAX_BYTES = 2_000
TEXTS = st.lists(st.lists(st.integers(0, 3), max_size=40).map(key_of), max_size=5)


class VectorCacheMachine(RuleBasedStateMachine):
    """Any mixture of looking up and keeping, beside a list of what was used, latest last."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = VectorCache(MAX_BYTES)
        self.used: list[bytes] = []

    @rule(keys=TEXTS)
    def find(self, keys: list[bytes]) -> None:
        for key, vector in zip(keys, self.cache.find(keys), strict=True):
            assert (vector is not None) == (key in self.used)
            if vector is not None:
                np.testing.assert_array_equal(vector, [len(key), sum(key)])
                self.used.remove(key)
                self.used.append(key)

    @rule(keys=TEXTS)
    def keep(self, keys: list[bytes]) -> None:
        self.cache.keep(keys, np.array([(len(key), sum(key)) for key in keys], np.float32).reshape(-1, 2))
        for key in keys:
            if key not in self.used:
                self.used.append(key)
                while self.bytes_used() > MAX_BYTES:
                    self.used.pop(0)

    def bytes_used(self) -> int:
        return sum(2 * 33 + len(key) + 8 + ENTRY_BYTES for key in self.used)  # 33: of an empty bytes object

    @invariant()
    def counts_bytes(self) -> None:
        assert self.cache.bytes == self.bytes_used() <= MAX_BYTES


TestVectorCache = VectorCacheMachine.TestCase
TestVectorCache.settings = settings(max_examples=100, stateful_step_count=30)


@pytest.mark.parametrize("entries", [1_000, 11_000, 21_000])
def test_bytes_are_those_that_python_takes(entries: int) -> None:
    """However far the dictionary has just grown, memory stays within what is counted, and is not much less."""
    vectors = np.zeros((entries, 64), np.float32)
    tracemalloc.start()
    try:
        cache = VectorCache(1 << 30)
        cache.keep([key_of([number] * 20) for number in range(entries)], vectors)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * cache.bytes < taken <= cache.bytes


def test_what_was_not_asked_for_longest_goes_first() -> None:
    """Looking a vector up keeps it from being the next that makes room."""
    keys = [key_of([number]) for number in range(40)]
    cache = VectorCache(MAX_BYTES)
    for key in keys:
        cache.keep([key], np.ones((1, 2), np.float32))
        cache.find(keys[:1])
    first, second, last = cache.find([keys[0], keys[1], keys[-1]])
    assert first is not None
    assert second is None
    assert last is not None


def test_a_text_larger_than_the_cache_pushes_nothing_out() -> None:
    """What cannot be kept leaves what is kept."""
    cache, small, large = VectorCache(MAX_BYTES), key_of([1]), key_of([2] * 1_000)
    cache.keep([small, large], np.ones((2, 2), np.float32))
    assert [vector is None for vector in cache.find([small, large])] == [False, True]
