"""When a collection's snapshot is written, and which one a start begins with."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from nearshore.errors import CorruptionError, HistoryChangedError, StorageFullError
from nearshore.records import Collection
from nearshore.replica import snapshots
from nearshore.replica.mirror import Mirror
from nearshore.replica.options import ReplicaOptions
from nearshore.replica.replica import Replica
from nearshore.replica.view import ReplicaView
from nearshore.store.base import Store

log = structlog.get_logger(__name__)

NOT_WRITTEN = "Free space or grow the volume of the data folder; until then a restart takes longer, nothing is lost."
NOT_READ = "Let the server's user read and write the data folder; until then each start rebuilds from the store."
PASSED_OVER = "Nothing: the next older snapshot is tried, else the index is rebuilt from the store."
REFUSED = "Check the disk if it happens again. The next older one is tried, else the index is rebuilt from the store."
STUCK = "Let the server's user write the data folder, or delete that snapshot by hand: every start tries it again."

_WORTH_SHARE = 20  # a snapshot is worth writing when a 20th of the rows changed


class SaveTask:
    """Writes one snapshot, in the builder thread. A failure to write is logged: the next one is due in its time."""

    def __init__(self, view: ReplicaView, collection: Collection, root: Path, changed_rows: int) -> None:
        """root: the folder of the collection's snapshots; changed_rows: since the one before."""
        self.changed_rows = changed_rows
        self.failed = False
        self.finished = False
        self._deleted = threading.Event()
        self._view = view
        self._collection = collection
        self._root = root

    def delete(self) -> None:
        """The collection was deleted: leave nothing on disk, whether this has run, runs, or is still to run."""
        self._deleted.set()
        shutil.rmtree(self._root, ignore_errors=True)

    def run(self) -> None:
        """Write it."""
        if not self._deleted.is_set():
            self._write()
        if self._deleted.is_set():
            shutil.rmtree(self._root, ignore_errors=True)
        self.finished = True

    def _write(self) -> None:
        started = time.monotonic()
        bound = log.bind(collection=self._collection.spec.name)
        try:
            folder = snapshots.write(self._view, self._collection, self._root)
        except (StorageFullError, OSError) as error:
            self.failed = True
            if not self._deleted.is_set():
                bound.error("snapshot not written, the older one stays", error=str(error), remedy=NOT_WRITTEN)
        else:
            seconds = round(time.monotonic() - started, 3)
            bound.info("snapshot written", folder=str(folder), position=self._view.position, seconds=seconds)


class Saver:
    """The snapshots of one collection."""

    def __init__(self, replica: Replica, root: Path, options: ReplicaOptions) -> None:
        """root: the folder of the collection's snapshots; it need not exist."""
        self.root = root
        self._replica = replica
        self._options = options
        self._task: SaveTask | None = None
        self._saved_at = time.monotonic()
        self._hurry = False
        self._log = log.bind(collection=replica.collection.spec.name)

    def load(self, store: Store, open_mirror: Callable[[Path, snapshots.Manifest], Mirror]) -> Mirror | None:
        """Open the newest snapshot that verifies and belongs to the store's history; None if there is none.

        Raises UnavailableError (the store cannot be asked) and OSError (no room for working files).
        """
        for folder in self._candidates():
            started = time.monotonic()
            try:
                manifest = snapshots.read_manifest(folder, self._replica.collection)
                store.read_feed(self._replica.collection.id, manifest.cursor, limit=1)
                mirror = open_mirror(folder, manifest)
            except HistoryChangedError as error:
                self._log.warning(
                    "snapshot of another history removed", folder=str(folder), detail=str(error), remedy=PASSED_OVER
                )
                shutil.rmtree(folder, ignore_errors=True)
            except CorruptionError as error:
                self._set_aside(folder, error)
            else:
                seconds = round(time.monotonic() - started, 3)
                self._log.info("snapshot loaded", folder=str(folder), rows=manifest.live_rows, seconds=seconds)
                return mirror
        return None

    def _candidates(self) -> list[Path]:
        """The snapshots to try, newest first; none, when their folder cannot be read."""
        try:
            snapshots.tidy(self.root)
            return snapshots.candidates(self.root)
        except PermissionError as error:
            self._log.warning("snapshots cannot be read", folder=str(self.root), detail=str(error), remedy=NOT_READ)
            return []

    def _set_aside(self, folder: Path, error: CorruptionError) -> None:
        """Keep a refused snapshot from being tried again, where that can be done: it would only cost time."""
        try:
            aside = snapshots.set_aside(folder)
        except OSError as failure:
            detail = f"{error} It stays in its place: {failure}."
            self._log.warning("snapshot refused", folder=str(folder), detail=detail, remedy=STUCK)
        else:
            self._log.warning("snapshot refused and set aside", folder=str(aside), detail=str(error), remedy=REFUSED)

    def hurry(self) -> None:
        """A new graph is worth a snapshot before the interval is over."""
        self._hurry = True

    def wanted(self, mirror: Mirror, now: float) -> bool:
        """Whether a snapshot is due. now: time.monotonic()."""
        if self._task is not None:
            if not self._task.finished:
                return False
            self._count_again(mirror)
        return self._worth_it(mirror) and (self._hurry or now - self._saved_at >= self._options.snapshot_interval_s)

    def _count_again(self, mirror: Mirror) -> None:
        """Forget the task that is out; the rows that it did not save are still to be saved."""
        task, self._task = self._task, None
        if task is not None and (task.failed or not task.finished):
            mirror.changed_rows += task.changed_rows

    def take(self, mirror: Mirror, now: float) -> SaveTask:
        """The snapshot to write now; the next one counts from here."""
        self._task = SaveTask(self._replica.view(), self._replica.collection, self.root, mirror.changed_rows)
        self._saved_at, self._hurry, mirror.changed_rows = now, False, 0
        return self._task

    def _worth_it(self, mirror: Mirror) -> bool:
        view = self._replica.view()
        least = max(self._options.snapshot_min_rows, view.index.live // _WORTH_SHARE)
        return view.position > 0 and mirror.changed_rows >= least

    def save_last(self, mirror: Mirror, budget_bytes: int) -> int:
        """Write a snapshot in this thread if it is worth it and not too large. Returns the bytes it took.

        The builder thread has ended: a task that it did not come to will never run.
        """
        self._count_again(mirror)
        view = self._replica.view()
        size = snapshots.size_bytes(view)
        if not self._worth_it(mirror) or size > budget_bytes:
            return 0
        SaveTask(view, self._replica.collection, self.root, mirror.changed_rows).run()
        return size

    def delete(self) -> None:
        """Remove all snapshots of a deleted collection, also one that is being written."""
        if self._task is not None:
            self._task.delete()
        shutil.rmtree(self.root, ignore_errors=True)
