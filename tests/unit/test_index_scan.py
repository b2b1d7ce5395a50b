"""The best rows by score, ties included."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nearshore.index.scan import best


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), max_size=40), st.integers(1, 50), st.randoms())
def test_of_equal_scores_the_lowest_rows_are_taken(values: list[float], k: int, shuffle: Random) -> None:
    """Whatever order rows come in, the k best are those of a full sort by falling score, then by row."""
    rows = list(range(0, 3 * len(values), 3))
    expected = sorted(rows, key=lambda row: (-values[row // 3], row))[:k]
    shuffle.shuffle(rows)
    scores = np.array([values[row // 3] for row in rows], np.float32)
    found, found_scores = best(np.array(rows, np.int64), scores, k)
    assert found.tolist() == expected
    assert found_scores.tolist() == [values[row // 3] for row in expected]
