"""What the rest of the service sees of one collection: its view, lookups, lists, counts, and waiting for a write."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from nearshore.errors import UnavailableError
from nearshore.index.filters import Filter
from nearshore.records import Collection, WriteToken
from nearshore.replica.commits import SeenCommits
from nearshore.replica.hindrance import Hindrance
from nearshore.replica.lag import Lag
from nearshore.replica.mirror import Mirror
from nearshore.replica.pace import Pace
from nearshore.replica.view import LoadProgress, ReplicaState, ReplicaView, Status
from nearshore.replica.waiters import Waiters, other_history
from nearshore.store.base import Cursor

Mask = npt.NDArray[np.bool_]


class IndexLoadingError(UnavailableError):
    """The collection is still being loaded."""

    reason = "INDEX_LOADING"

    def __init__(self, name: str, held_up: str = "") -> None:
        """name: the bare collection id; held_up: by what, as a sentence, if loading does not go on."""
        message, remedy = f"Collection {name!r} is still being loaded from the store", "Retry in a moment"
        if held_up:
            message, remedy = f"{message}, which is held up: {held_up}", "Mend that; loading then goes on by itself"
        else:
            message += "."
        super().__init__(
            message, f"{remedy}; the log and the readiness probe tell when it is done.", collection=name, detail=held_up
        )


class ReplicaClosedError(UnavailableError):
    """The process is ending."""

    reason = "SHUTTING_DOWN"

    def __init__(self) -> None:
        """The same for every caller."""
        super().__init__("This server is shutting down.", "Send the call to another replica, or again in a moment.")


class Replica:
    """One collection, readable from any thread."""

    def __init__(
        self, collection: Collection, wake: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """wake: makes the follower look at this collection soon; clock: seconds."""
        self.collection = collection
        self.lock = threading.Lock()  # view and directory belong together
        self.waiters = Waiters()
        self.pace = Pace(clock)  # what writers keep to
        self.ready = threading.Event()
        self._wake = wake
        self._mirror: Mirror | None = None
        self._view: ReplicaView | None = None
        self.seen = SeenCommits()  # of the history that is followed
        self._head = 0
        self._contact = time.monotonic()
        self._lag = Lag(clock)
        self._history_changed = False
        self._progress = LoadProgress(collection.spec.name, 0, 0.0, building=False, ready=False)
        self.held_up: Hindrance | None = None
        """What the follower's steps with this collection fail at right now; set by its thread."""

    # Reading

    def view(self) -> ReplicaView:
        """The newest published view. Raises IndexLoadingError before the first."""
        view = self._view
        if view is None:
            raise self._loading_error()
        return view

    @property
    def has_view(self) -> bool:
        """Whether there is a view to read."""
        return self._view is not None

    def state(self, view: ReplicaView | None = None) -> ReplicaState:
        """How true an answer from `view` (or from the newest) is."""
        view = view or self.view()
        return ReplicaState(
            position=view.position,
            tag=view.tag,
            commit_at=view.commit_at,
            contact_age_s=time.monotonic() - self._contact,
            head=self._head,
            generation=view.index.generation,
            history_changed=self._history_changed,
            lag_s=self._lag.seconds,
        )

    def status(self) -> Status:
        """The sizes of the newest view. Raises IndexLoadingError before the first."""
        with self.lock:
            view, mirror = self.view(), self._mirror
        index = view.index
        return Status(
            state=self.state(view),
            documents=index.live,
            sealed_rows=index.sealed_rows,
            tail_rows=index.n - index.sealed_rows,
            dead_rows=index.n - index.live,
            building=mirror is not None and mirror.building is not None,
            ready=self.ready.is_set(),
        )

    def applied(self, token: WriteToken) -> Future[None]:
        """Resolve once the view has this write; never blocks. Cancel the future to stop waiting.

        It fails with HistoryChangedError for a token of another collection or history. While the store cannot be
        reached a token of a commit that was not seen waits: the caller's deadline is the limit.
        """
        if token.collection_id != self.collection.id:
            return _done(other_history(token))
        view = self._view
        applied = view is not None and not self._history_changed and token.position <= view.position
        if applied and self.seen.tag(token.position) == token.tag:
            return _done(None)
        future = self.waiters.add(token)
        self._wake()
        return future

    def loaded(self) -> Future[None]:
        """Resolve once there is a view; never blocks. Cancel the future to stop waiting."""
        if self._view is not None:
            return _done(None)
        future = self.waiters.add_first(self.collection.id)
        self._wake()
        return future

    def lookup(self, ids: Sequence[str]) -> tuple[ReplicaView, npt.NDArray[np.int64]]:
        """The rows (m,) of `ids` in one view, -1 where the view has no such document."""
        with self.lock:
            view, mirror = self._published()
            rows = [mirror.directory.row(document_id) for document_id in ids]
        return view, np.array(rows, np.int64)

    def list_page(
        self, after_id: str, limit: int, filter_tree: Filter | None = None
    ) -> tuple[ReplicaView, npt.NDArray[np.int64], bool]:
        """The rows of the first `limit` documents behind `after_id` in id order, and whether more follow.

        All of one view. after_id "" starts at the beginning; filter_tree restricts what is listed.
        """
        view, wanted = self.view(), limit + 1
        mask = None if filter_tree is None else view.index.mask(filter_tree)
        with self.lock:
            current, mirror = self._published()
            if mask is None:
                view = current
            rows = mirror.directory.rows_after(after_id, wanted, mask) if view is current else None
        if rows is None:  # too sparse to walk through under the lock, or another view came in between
            rows = _smallest(view, view.index.alive if mask is None else mask, after_id, wanted)
        return view, np.array(rows[:limit], np.int64), len(rows) > limit

    def count(self, filter_tree: Filter | None = None) -> tuple[ReplicaView, int]:
        """How many documents one view holds, all or those the filter allows."""
        view = self.view()
        mask = view.index.mask(filter_tree)
        return view, view.index.live if mask is None else int(np.count_nonzero(mask))

    def progress(self) -> LoadProgress:
        """How far the first load is."""
        return self._progress

    def _loading_error(self) -> IndexLoadingError:
        held_up = self.held_up
        return IndexLoadingError(self.collection.spec.name, held_up.detail if held_up is not None else "")

    def _published(self) -> tuple[ReplicaView, Mirror]:
        if self._view is None or self._mirror is None:
            raise self._loading_error()
        return self._view, self._mirror

    # For the follower thread

    def publish(self, mirror: Mirror, view: ReplicaView, rows: dict[str, int] | None = None) -> None:
        """Swap the view in, with what belongs to it.

        rows: the directory as a rebuild of the index renumbered it.
        """
        with self.lock:
            if rows is not None:
                mirror.directory.replace(rows)
            mirror.directory.publish()
            self._mirror, self._view, self._history_changed = mirror, view, False
        self._lag.applied(view.position)
        self.seen.add((Cursor(view.position, view.tag),))

    def wake_waiters(self) -> None:
        """Resolve those whose write is visible; nobody while the view belongs to another history."""
        view = self._view
        if view is not None and not self._history_changed:
            self.waiters.reach(view.position)

    def heard(self, head: Cursor) -> None:
        """The store just said what the newest commit is."""
        self._head, self._contact = head.position, time.monotonic()
        self._lag.heard(head.position)

    def history_changed(self) -> None:
        """The view belongs to a history that the store no longer has; it serves on until it is replaced."""
        self._history_changed = True
        self.seen.clear()  # a page names only its newest commits: older ones would prove tokens that were lost
        self._lag.lost()

    def loading(self, rows_read: int, share: float, *, building: bool, ready: bool) -> None:
        """Tell how far the first load is; `ready` ends it."""
        self._progress = LoadProgress(self.collection.spec.name, rows_read, share, building=building, ready=ready)
        if ready:
            self.ready.set()


def _smallest(view: ReplicaView, mask: Mask, after_id: str, count: int) -> list[int]:
    """Rows of the `count` smallest ids behind `after_id` among the rows of `mask` (n,), in order. For sparse masks."""
    ids = view.row_ids
    matching = ((ids[row], row) for row in np.flatnonzero(mask).tolist() if ids[row] > after_id)
    return [row for _, row in heapq.nsmallest(count, matching)]


def _done(error: Exception | None) -> Future[None]:
    future: Future[None] = Future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future
