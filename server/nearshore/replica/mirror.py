"""Everything derived from one history of one collection: segment, payload, directory, and where in the feed it stands.

Written by the follower thread alone. A replica serves one mirror; when the store's history turns out to be another,
a second one is filled aside and takes its place.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nearshore.errors import StorageFullError
from nearshore.index import BuildCancelled, BuildPlan, Built, IndexOptions, Segment
from nearshore.records import Collection, Document, Item
from nearshore.replica.directory import Directory
from nearshore.replica.payload import Compacted, OpenFile, Payload, PayloadReader, compact
from nearshore.replica.view import ReplicaView
from nearshore.store.base import Cursor, Walk

_SWEEP_ROWS = 1_000
_payload_numbers = itertools.count()


def payload_path(folder: Path) -> Path:
    """A fresh name for a payload file in `folder`."""
    return folder / f"payload-{next(_payload_numbers)}.bin"


class Mirror:
    """One collection as one history tells it."""

    def __init__(self, segment: Segment, payload: Payload, folder: Path, lock: threading.Lock) -> None:
        """Join parts whose row numbers agree; `lock` guards the directory together with the publication."""
        self._segment = segment
        self._payload = payload
        self._folder = folder
        self._lock = lock
        self._row_ids: list[str] = []
        self.directory = Directory()
        self.cursor = Cursor()
        self.commit_at: datetime | None = None
        self.walk: Walk | None = None  # an unfinished walk over the feed, from the cursor
        self.rows_read = 0
        self.changed_rows = 0  # since the last snapshot
        self.building: BuildTask | None = None

    @classmethod
    def create(cls, collection: Collection, folder: Path, options: IndexOptions, lock: threading.Lock) -> Mirror:
        """An empty mirror at position 0 with its working files in `folder`."""
        folder.mkdir(parents=True)
        spec = collection.spec
        payload = Payload(OpenFile(payload_path(folder)))  # first: closed by itself should the segment fail
        segment = Segment(folder, dimensions=spec.dimensions, metric=spec.metric, kind=spec.index_kind, options=options)
        return cls(segment, payload, folder, lock)

    def restore(self, row_ids: list[str], directory: Directory, cursor: Cursor, commit_at: datetime | None) -> None:
        """Stand where a snapshot stood: ids by row, dead ones too, and the feed position."""
        self._row_ids = row_ids
        self.directory = directory
        self.cursor = cursor
        self.commit_at = commit_at

    @property
    def sealed_rows(self) -> int:
        """Rows in the graph."""
        return self._segment.row_count - self._segment.tail_rows

    @property
    def tail_rows(self) -> int:
        """Rows beside the graph, unpublished ones included."""
        return self._segment.tail_rows

    @property
    def bytes_since_plan(self) -> int:
        """Vectors and documents written since the build that is out was planned. 0 when none is out."""
        if self.building is None:
            return 0
        planned = self.building.plan.view
        vectors: int = (self._segment.row_count - planned.n) * planned.rows.itemsize * planned.rows.shape[1]
        return vectors + self._payload.size_bytes - self.building.payload.size_bytes

    @property
    def has_built(self) -> bool:
        """Whether a build has ended and waits to be adopted."""
        return self.building is not None and self.building.finished

    @property
    def blocked(self) -> str:
        """Why a due build does not fit the memory budget; empty when it does or none is due."""
        return self._segment.blocked

    def apply(self, items: Sequence[Item]) -> None:
        """Enter one page of the feed, unseen until published. Raises StorageFullError or OSError, changing nothing."""
        documents = [item.document for item in items if item.document is not None]
        first_row = self._payload.rows
        if documents:
            self._append(documents, np.stack([item.vector for item in items if item.vector is not None]))
        rows = itertools.count(first_row)
        changes = [(item.id, -1 if item.document is None else next(rows)) for item in items]
        with self._lock:
            killed = self.directory.enter(changes)
        self._segment.kill(killed)
        self.rows_read += len(items)
        self.changed_rows += len(items)

    def _append(self, documents: list[Document], vectors: npt.NDArray[np.float32]) -> None:
        first_row = self._payload.rows
        self._payload.append(documents)
        try:
            self._segment.append(vectors, documents)
        except (StorageFullError, OSError):
            self._payload.truncate(first_row)
            raise
        self._row_ids.extend(document.id for document in documents)

    def freeze(self) -> ReplicaView:
        """The view of everything applied, at the cursor. Right only between two walks."""
        cursor = self.cursor
        return ReplicaView(
            cursor.position, cursor.tag, self.commit_at, self._segment.publish(), self._row_ids, self._payload.reader()
        )

    def sweep(self) -> bool:
        """Tidy the directory a little after deletes. Returns whether there is more to tidy."""
        with self._lock:
            return self.directory.sweep(_SWEEP_ROWS)

    def plan_build(self) -> BuildTask | None:
        """The build that is due, if one is and none is out."""
        plan = self._segment.pending_build() if self.building is None else None
        if plan is None:
            return None
        path = payload_path(self._folder) if plan.kind == "rebuild" else None
        self.building = BuildTask(plan, self._payload.reader(), path)
        return self.building

    def adopt(self, task: BuildTask) -> dict[str, int] | None:
        """Take in a build that ended well. Returns the renumbered directory to publish with it, or None: rows stay.

        Raises StorageFullError or OSError, changing nothing; then abandon it.
        """
        if task.built is None:
            raise RuntimeError("only a build that ended well can be adopted") from task.error
        compacted = None if task.compacted is None else self._payload.caught_up(task.compacted)
        old_to_new = self._segment.adopt(task.built)
        self.building = None
        if old_to_new is None:
            return None
        if compacted is None:
            raise RuntimeError("a build renumbered its rows without having been planned as a rebuild")
        rows = self._segment.row_count
        self._payload.discard()
        self._payload = compacted.renumbered(old_to_new, rows)
        row_ids = [""] * rows
        for old, new in enumerate(old_to_new.tolist()):
            if new >= 0:
                row_ids[new] = self._row_ids[old]
        self._row_ids = row_ids
        return self.directory.renumbered(old_to_new.tolist())

    def abandon_build(self) -> None:
        """Forget the build that is out, and its files; it may be planned again."""
        if self.building is not None:
            self.building.discard()
        self.building = None
        self._segment.abandon()

    def close(self) -> None:
        """Drop the working files; views that are still held stay good."""
        if self.building is not None:
            self.building.discard()
        self._segment.close()
        self._payload.discard()
        shutil.rmtree(self._folder, ignore_errors=True)


class BuildTask:
    """One build for the builder thread: the index part, and for a rebuild the payload without its dead records."""

    def __init__(self, plan: BuildPlan, payload: PayloadReader, path: Path | None) -> None:
        """Payload as of the plan; path is that of the new payload, for a rebuild."""
        self.plan = plan
        self.payload = payload
        self.path = path
        self.built: Built | None = None
        self.compacted: Compacted | None = None
        self.error: Exception | None = None
        self.finished = False
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._discarded = False

    def run(self) -> None:
        """Build; touches nothing that the follower writes. A want of memory or disk is left in `error`."""
        started = time.monotonic()
        try:
            if self.path is not None:
                self.compacted = compact(self.payload, self.plan.view.alive, self.path)
            self.built = self.plan.run()
        except (BuildCancelled, StorageFullError, OSError, MemoryError) as error:
            self.error = error
        self.seconds = time.monotonic() - started
        with self._lock:
            self.finished = True
            if self._discarded:
                self._remove()

    def discard(self) -> None:
        """Nobody will adopt this: end soon, and leave no file, open or on disk."""
        self.plan.cancel()
        with self._lock:
            self._discarded = True
            if self.finished:
                self._remove()

    def _remove(self) -> None:
        if self.built is not None and self.built.compacted is not None:
            self.built.compacted.rows.remove()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.built = self.compacted = None
