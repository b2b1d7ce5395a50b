"""What the calls of one group amount to: each is judged in its turn, then only the last word on each id is written.

Judging happens while the collection is locked, on what the database held before, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nearshore.errors import HistoryChangedError, NearshoreError, RequestIdReusedError
from nearshore.records import Commit
from nearshore.store.base import WriteResult
from nearshore.store.history import check_basis
from nearshore.store.rows import DeleteRow, UpsertRow, Write

Known = Mapping[str, tuple[bytes, WriteResult]]
"""Digest and result of the requests that were written before, by id."""


@dataclass(slots=True)
class Judgement:
    """Results in the order of the calls, and what is to be written for them."""

    results: list[WriteResult | NearshoreError] = field(default_factory=list)
    upserts: dict[str, UpsertRow] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)
    requests: list[tuple[str, bytes, int]] = field(default_factory=list)  # id, digest, deleted
    writes: bool = False  # at least one call is neither a repetition nor refused


def judge(
    writes: Sequence[Write], commit: Commit, known: Known, history: Mapping[int, bytes], live: Mapping[str, int]
) -> Judgement:
    """Judge writes of one collection that would all be written at commit.

    history: the tags of those commits, among the ones that writes were decided on, that exist; live: the positions of
    those documents, among the ids that the writes delete, that exist.
    """
    judgement = Judgement()
    requests, positions = dict(known), dict(live)
    for write in writes:
        before = requests.get(write.request_id) if write.request_id else None
        if before is not None:
            same = before[0] == write.request_digest
            judgement.results.append(before[1] if same else RequestIdReusedError(write.request_id))
            continue
        try:
            check_basis(write.basis, history.get(write.basis.position) if write.basis else None)
        except HistoryChangedError as error:
            judgement.results.append(error)
            continue
        for row in write.rows.upserts:
            judgement.upserts[row[0]] = row
            judgement.tombstones.discard(row[0])
            positions[row[0]] = commit.position
        deleted = sum(_delete(judgement, positions, row) for row in write.rows.deletes)
        result = WriteResult(commit, deleted)
        judgement.writes = True
        judgement.results.append(result)
        if write.request_id:
            requests[write.request_id] = (write.request_digest, result)
            judgement.requests.append((write.request_id, write.request_digest, deleted))
    return judgement


def _delete(judgement: Judgement, positions: dict[str, int], row: DeleteRow) -> bool:
    """Delete a document if it exists and did not change since."""
    key, unchanged_since = row
    position = positions.get(key)
    if position is None or position > unchanged_since:
        return False
    del positions[key]
    judgement.upserts.pop(key, None)
    judgement.tombstones.add(key)
    return True
