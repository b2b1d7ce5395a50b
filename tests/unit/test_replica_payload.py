"""The replica's own copy of documents gives back exactly what was put in, whoever still reads an older state."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearshore.records import Document
from nearshore.replica.payload import OpenFile, Payload, compact, decode, encode

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.just(UTC))
kinds = [texts, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans(), times]
values = st.one_of(*kinds, *(st.lists(kind, max_size=3).map(tuple) for kind in kinds))
documents = st.builds(Document, texts, texts, texts, texts, st.dictionaries(texts, values, max_size=4))


@given(documents)
def test_a_record_gives_its_document_back(document: Document) -> None:
    """Every text and every metadata value, with its type, comes back as it was."""
    back = decode(document.id, encode(document))
    assert back == document
    assert [type(value) for value in back.metadata.values()] == [type(value) for value in document.metadata.values()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(batches=st.lists(st.lists(documents, min_size=1, max_size=4), min_size=1, max_size=5), data=st.data())
def test_a_rebuild_keeps_the_living(batches: list[list[Document]], data: st.DataObject, tmp_path: Path) -> None:
    """After a rebuild that overlapped with writes, the new rows hold the living documents and old readers the old."""
    payload, written = Payload(OpenFile(tmp_path / f"a{data.draw(st.uuids())}")), list[Document]()
    planned = data.draw(st.integers(0, len(batches) - 1))
    for number, batch in enumerate(batches):
        if number == planned:
            reader = payload.reader()
            alive = np.array(data.draw(st.lists(st.booleans(), min_size=len(written), max_size=len(written))), bool)
            compacted = compact(reader, alive, tmp_path / f"b{data.draw(st.uuids())}")
        payload.append(batch)
        written += batch
    kept = [*np.flatnonzero(alive).tolist(), *range(len(alive), len(written))]
    old_to_new = np.full(len(written), -1)
    old_to_new[kept] = np.arange(len(kept))
    moved = payload.caught_up(compacted).renumbered(old_to_new, len(kept))
    payload.discard()
    moved.append(batches[0])
    expected = [written[row] for row in kept] + batches[0]
    assert moved.reader().documents(range(len(expected)), [one.id for one in expected]) == expected
    assert reader.documents(range(len(alive)), [one.id for one in written[: len(alive)]]) == written[: len(alive)]


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that fails half-way leaves the rows as they were, and can be repeated."""
    payload = Payload(OpenFile(tmp_path / "payload"))
    payload.append([Document("a", "first")])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("nearshore.replica.payload.os.pwrite", full)
        with pytest.raises(OSError, match="No space"):
            payload.append([Document("b", "second")])
    assert payload.rows == 1
    payload.append([Document("b", "second")])
    assert [one.text for one in payload.reader().documents([1, 0], ["b", "a"])] == ["second", "first"]
