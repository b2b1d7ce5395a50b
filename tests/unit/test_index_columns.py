"""Filter columns: the same answer as each document by itself, for any number of rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nearshore.index.columns import Columns
from nearshore.index.filters import Filter, parse
from nearshore.records import Document
from tests.unit.index_strategies import documents, trees


def _columns(batches: list[list[Document]]) -> Columns:
    columns = Columns()
    for batch in batches:
        columns.append(batch)
    return columns


def _expected(tree: Filter, docs: list[Document]) -> list[bool]:
    return [tree.matches(document) for document in docs]


@given(st.lists(st.lists(documents, max_size=4), max_size=4), st.lists(trees, min_size=1, max_size=4))
def test_mask_is_what_each_document_matches(batches: list[list[Document]], conditions: list[Filter]) -> None:
    """A column mask equals the filter held against every document, also over the first rows only."""
    columns = _columns(batches)
    docs = [document for batch in batches for document in batch]
    for tree in conditions:
        assert columns.mask(tree, len(docs)).tolist() == _expected(tree, docs)
        assert columns.mask(tree, len(docs) // 2).tolist() == _expected(tree, docs[: len(docs) // 2])


@given(st.lists(documents, max_size=8), st.lists(documents, max_size=3), st.data(), trees)
def test_copied_rows_keep_their_meaning(
    docs: list[Document], before: list[Document], data: st.DataObject, tree: Filter
) -> None:
    """Rows copied from other columns, as a rebuild does, match as they did there."""
    kept = data.draw(st.lists(st.sampled_from(range(len(docs))), unique=True).map(sorted) if docs else st.just([]))
    columns = _columns([before])
    columns.append_from(_columns([docs]), np.array(kept, np.int64))
    expected = _expected(tree, before + [docs[row] for row in kept])
    assert columns.mask(tree, columns.row_count).tolist() == expected


def test_a_reader_of_earlier_rows_is_undisturbed() -> None:
    """Rows, keys and strings appended later do not show in the mask of the earlier rows."""
    columns = _columns([[Document("a", "", metadata={"k": "x"}), Document("b", "")]])
    condition = parse("k = x OR late = 1 OR _id > a")
    before = columns.mask(condition, 2)
    columns.append([Document(f"{row}", "", metadata={"k": f"{row}", "late": 1}) for row in range(1000)])
    assert columns.mask(condition, 2).tolist() == before.tolist()
    assert columns.mask(condition, 1002).sum() == 1002


def test_several_values_are_one_pass() -> None:
    """A field compared with several values finds the rows of each value, unknown ones none."""
    columns = _columns([[Document(f"id{row}", "", metadata={"k": f"v{row % 10}"}) for row in range(100)]])
    mask = columns.mask(parse("k = (v1 OR v3 OR nowhere) _id = (id1 OR id3 OR id4 OR id0x)"), 100)
    assert np.flatnonzero(mask).tolist() == [1, 3]
