"""The plain values that an operator sets for the replica."""

from __future__ import annotations

from dataclasses import dataclass, field

from nearshore.index import IndexOptions


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """How collections are followed, built and saved."""

    index: IndexOptions = field(default_factory=IndexOptions)
    poll_interval_s: float = 0.25  # longest wait between two looks at the store
    snapshot_interval_s: float = 300.0  # shortest time between two snapshots of one collection
    snapshot_min_rows: int = 1_000  # fewer changed rows than this are quicker to read from the store again
    close_snapshot_bytes: int = 256 << 20  # what a clean close may write in all, so that it ends within seconds
    page_rows: int = 1_000  # rows read and applied at a time
