"""Keeps one collection's replica true to the store: one step at a time, always in the follower thread."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from nearshore.errors import CollectionNotFoundError, HistoryChangedError, NearshoreError, StorageFullError
from nearshore.index import BuildCancelled
from nearshore.replica import snapshots
from nearshore.replica.builder import Builder
from nearshore.replica.loading import load_snapshot
from nearshore.replica.mirror import BuildTask, Mirror
from nearshore.replica.options import ReplicaOptions
from nearshore.replica.replica import Replica
from nearshore.replica.saving import Saver
from nearshore.store.base import Cursor, FeedPage, Store

log = structlog.get_logger(__name__)

OTHER_HISTORY = "Expected after a restore or a fail-over: searches go on over the old view until the new one is built."
PUT_OFF = "Raise index.build_memory_bytes and the process's memory; until then searches are right, but slower."
PAUSED = "It goes on when the build ends. If this happens often, raise index.build_memory_bytes or write more slowly."
BUILD_FAILED = "It is tried again in a minute; if that fails too, free what `error` names, memory or disk."

_BUILD_RETRY_S = 60.0
_PROGRESS_EVERY_S = 5.0
_folder_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all followers of a process share."""

    store: Store
    scratch: Path  # working files; emptied when the process starts
    snapshots: Path
    options: ReplicaOptions
    builder: Builder


class Follower:
    """The writing side of one replica."""

    def __init__(self, replica: Replica, around: Surroundings, wake: Callable[[], None]) -> None:
        """wake: makes the follower thread step this follower soon."""
        self.replica = replica
        self._around = around
        self._wake = wake
        self._log = log.bind(collection=replica.collection.spec.name)
        self._mirror: Mirror | None = None
        self._served: Mirror | None = None  # another than _mirror while that one is being filled aside
        self._saver = Saver(replica, around.snapshots / str(replica.collection.id), around.options)
        self._build_at = 0.0
        self._blocked = ""
        self._pausing = False
        self._started = self._told = time.monotonic()

    @property
    def serves(self) -> bool:
        """Whether there is a view to read."""
        return self._served is not None

    def wants_step(self, head: Cursor, now: float) -> bool:
        """Whether there is something to do, given the store's head. now: time.monotonic()."""
        mirror = self._mirror
        if mirror is None or self._served is not mirror or mirror.walk is not None or mirror.cursor != head:
            return True
        self.replica.heard(head)
        due = self._saver.wanted(mirror, now) or 0 < self._build_at <= now
        return len(self.replica.waiters) > 0 or mirror.has_built or due

    def begin_empty(self) -> None:
        """Serve an empty view at once: the collection was created just now."""
        self._mirror = self._new_mirror()
        self._publish(self._mirror)
        self.replica.loading(0, 1.0, building=False, ready=True)

    def step(self) -> bool:
        """Take in what is finished, read one page, apply it. Returns whether there is more to do at once.

        Raises UnavailableError (the store cannot be reached), CollectionNotFoundError (deleted), StorageFullError or
        OSError (disk full); the step can be repeated after each.
        """
        try:
            more = self._step()
        except BaseException:
            self.replica.pace.resting()
            raise
        if self._served is self._mirror and self._mirror is not None and self._mirror.walk is not None:
            self.replica.pace.walking()
        else:
            self.replica.pace.resting()
        return more

    def _step(self) -> bool:
        mirror = self._mirror or self._open()
        if mirror.walk is None:
            self._adopt(mirror)
        paused, asked = self._pauses(mirror), self.replica.waiters.asked()
        try:  # paused, nothing is applied, but the head is known and the history checked
            page = self._read(mirror, limit=1 if paused else self._around.options.page_rows)
        except HistoryChangedError as error:
            self._start_over(error)
            return True
        self.replica.waiters.judge(asked, page.head.position, self.replica.seen, self._around.store)
        if paused:
            self.replica.wake_waiters()
            return False
        self._take(mirror, page)
        return mirror.walk is not None or mirror.has_built or mirror.sweep()

    def _read(self, mirror: Mirror, limit: int) -> FeedPage:
        page = self._around.store.read_feed(self.replica.collection.id, mirror.cursor, mirror.walk, limit)
        self.replica.heard(page.head)
        proved = mirror.cursor if mirror.walk is None else mirror.walk.seen
        self.replica.seen.add(page.commits, behind=proved.position)
        return page

    def _take(self, mirror: Mirror, page: FeedPage) -> None:
        mirror.apply(page.items)
        mirror.walk = page.next
        if page.next is not None:
            self._tell_progress(mirror, page)
            return
        self._plan_build(mirror)  # before the view: who sees what a build is due for has to see the build, too
        if mirror.cursor != page.head or self._served is not mirror:
            mirror.cursor, mirror.commit_at = page.head, page.head_at
            self._publish(mirror)
        self.replica.wake_waiters()
        if not self.replica.ready.is_set():
            self._tell_ready(mirror)
        self._plan_snapshot(mirror)

    def _publish(self, mirror: Mirror, rows: dict[str, int] | None = None) -> None:
        self.replica.publish(mirror, mirror.freeze(), rows)
        if self._served is not None and self._served is not mirror:
            self._served.close()
        self._served = mirror

    # Loading and starting over

    def _open(self) -> Mirror:
        """The newest snapshot that verifies, else an empty mirror to be filled from the store."""
        self._mirror = self._saver.load(self._around.store, self._load) or self._new_mirror()
        self._started = time.monotonic()
        return self._mirror

    def _load(self, folder: Path, manifest: snapshots.Manifest) -> Mirror:
        collection, options = self.replica.collection, self._around.options.index
        return load_snapshot(folder, manifest, collection, self._new_folder(), options, self.replica.lock)

    def _new_mirror(self) -> Mirror:
        options = self._around.options.index
        return Mirror.create(self.replica.collection, self._new_folder(), options, self.replica.lock)

    def _new_folder(self) -> Path:
        return self._around.scratch / f"{self.replica.collection.id}-{next(_folder_numbers)}"

    def _start_over(self, error: HistoryChangedError) -> None:
        """Fill a second mirror from position 0; the served one stays until that is complete.

        Raises CollectionNotFoundError when the other history has another collection in its place: ids and names can
        come back only there.
        """
        self._log.warning("history of the store changed, rebuilding", detail=str(error), remedy=OTHER_HISTORY)
        self.replica.history_changed()
        collection = self.replica.collection
        if self._around.store.get_collection(collection.spec.name) != collection:
            raise CollectionNotFoundError(collection.spec.name)
        if self._mirror is not None and self._mirror is not self._served:
            self._mirror.close()
        self._mirror = self._new_mirror()
        self._started = time.monotonic()

    def _tell_progress(self, mirror: Mirror, page: FeedPage) -> None:
        if self._served is mirror or page.next is None:
            return
        share = page.next.position / max(1, page.head.position)
        self.replica.loading(mirror.rows_read, share, building=False, ready=self.replica.ready.is_set())
        now = time.monotonic()
        if now - self._told >= _PROGRESS_EVERY_S:
            self._told = now
            rate = mirror.rows_read / max(now - self._started, 1e-9)
            self._log.info("loading", rows=mirror.rows_read, percent=round(100 * share), rows_per_s=round(rate))

    # Builds and snapshots

    def _pauses(self, mirror: Mirror) -> bool:
        """Whether the feed waits for the build that is out, or queues: what came since fills the memory of a build.

        Short of that the view follows, however long the tail, which costs searches time only. A walk once begun goes
        on, for its rows are unseen until it ends.
        """
        budget = self._around.options.index.build_memory_bytes
        pausing = mirror.walk is None and mirror.bytes_since_plan > budget
        if pausing and not self._pausing:
            self._log.warning("the feed waits for an index build", tail_rows=mirror.tail_rows, remedy=PAUSED)
        self._pausing = pausing
        return pausing

    def _plan_build(self, mirror: Mirror) -> None:
        task = None
        if time.monotonic() >= self._build_at:
            self._build_at, task = 0.0, mirror.plan_build()
        if task is not None:
            self._log.info("building the index", kind=task.plan.kind, tail_rows=mirror.tail_rows)
            self._around.builder.submit(task, self._wake)
        if mirror.blocked != self._blocked:
            self._blocked = mirror.blocked
            if self._blocked:
                self._log.warning("an index build is put off", detail=self._blocked, remedy=PUT_OFF)
            else:
                self._log.info("an index build fits again")

    def _plan_snapshot(self, mirror: Mirror) -> None:
        now = time.monotonic()
        if mirror.building is None and self._saver.wanted(mirror, now):
            self._around.builder.submit(self._saver.take(mirror, now), self._wake)

    def _tell_ready(self, mirror: Mirror) -> None:
        building = mirror.building is not None
        self.replica.loading(mirror.rows_read, 1.0, building=building, ready=not building)
        if not building:
            seconds = round(time.monotonic() - self._started, 3)
            view = self.replica.view()
            self._log.info("collection ready", position=view.position, rows=view.index.live, seconds=seconds)

    def _adopt(self, mirror: Mirror) -> None:
        task = mirror.building
        if task is None or not task.finished:
            return
        first = mirror.sealed_rows == 0
        rows = None
        try:
            if task.error is None:
                rows = mirror.adopt(task)
        except (StorageFullError, OSError) as error:  # what was written meanwhile does not fit beside the old files
            task.error = error
        if task.error is not None:
            self._give_up(mirror, task)
            return
        self._plan_build(mirror)  # of what was written meanwhile; before the view, as in _take
        self._publish(mirror, rows)
        if first or rows is not None:
            self._saver.hurry()
        self._log.info(
            "index built", kind=task.plan.kind, sealed_rows=mirror.sealed_rows, seconds=round(task.seconds, 3)
        )

    def _give_up(self, mirror: Mirror, task: BuildTask) -> None:
        mirror.abandon_build()
        self._build_at = time.monotonic() + _BUILD_RETRY_S
        if not isinstance(task.error, BuildCancelled):
            self._log.error(
                "index build failed, searches stay exact over the tail", error=repr(task.error), remedy=BUILD_FAILED
            )

    # Ending

    def drop(self) -> None:
        """The collection was deleted: fail who waits, remove the files."""
        self.close(CollectionNotFoundError(self.replica.collection.spec.name))
        self._saver.delete()

    def save_last(self, budget_bytes: int) -> int:
        """At a clean end, write a snapshot if that is worth it and fits. Returns the bytes it took."""
        return self._saver.save_last(self._mirror, budget_bytes) if self._mirror and self._served is self._mirror else 0

    def cancel_build(self) -> None:
        """Let the build that is out end soon, without a result."""
        if self._mirror is not None and self._mirror.building is not None:
            self._mirror.building.plan.cancel()

    def close(self, error: NearshoreError) -> None:
        """Drop the working files and fail who still waits with `error`."""
        self.replica.waiters.fail(error)
        self.replica.pace.resting()
        for mirror in {self._mirror, self._served}:
            if mirror is not None:
                mirror.close()
