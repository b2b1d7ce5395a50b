"""All collections of a store as this process serves them, and the thread that follows them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from nearshore.errors import CollectionNotFoundError, UnavailableError
from nearshore.records import Collection, CollectionSpec
from nearshore.replica.builder import Builder
from nearshore.replica.creations import Creations
from nearshore.replica.follow import Follower, Surroundings
from nearshore.replica.hindrance import Hindrance, attempt, held_up_by
from nearshore.replica.options import ReplicaOptions
from nearshore.replica.registry import Registry
from nearshore.replica.replica import Replica, ReplicaClosedError
from nearshore.replica.snapshots import remove_strays
from nearshore.replica.view import LoadProgress
from nearshore.store.base import Store

log = structlog.get_logger(__name__)

HELD_UP = "It is retried by itself. Do what `detail` says: most often bring back the store, or make room on the disk."

_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.25, 0.5  # a store that came back is noticed within the last one
_BUILD_GRACE_S = 4.0  # the whole process has twelve
_POLL_COST = 10  # polling takes at most about one part in so many of the thread's time


class Replicas:
    """The registry of replicas. Thread-safe."""

    def __init__(self, around: Surroundings, on_death: Callable[[BaseException], None]) -> None:
        """Use open()."""
        self.ready = threading.Event()  # everything that was there at the start is loaded and built
        self.contact_at: float | None = None  # time.monotonic() when the store last told all heads
        self.held_up: Hindrance | None = None  # what polling fails at right now; set by the follower thread
        self._around = around
        self._on_death = on_death
        self._registry = Registry(self._new_follower)
        self._lock = threading.Lock()  # guards _woken
        self._woken: set[int] = set()
        self._wake = threading.Event()
        self._creations = Creations()
        self._stopping = False
        self._next_poll = 0.0
        self._backoff_s = 0.0
        self._was_away = False  # the store, which may have come back as another
        self._initial: list[Replica] | None = None
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    @classmethod
    def open(
        cls, store: Store, folder: Path, options: ReplicaOptions, on_death: Callable[[BaseException], None]
    ) -> Replicas:
        """Prepare to serve what `store` holds, with working files and snapshots under the data folder `folder`.

        on_death is told when the follower or builder thread dies; the process has to end then. Raises OSError.
        """
        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        around = Surroundings(store, scratch, folder / "snapshots", options, Builder(on_death))
        return cls(around, on_death)

    def start(self) -> None:
        """Start the threads; `ready` is set once everything is loaded."""
        self._around.store.watch(self._woken_by)
        self._around.builder.start()
        self._thread.start()

    def close(self) -> None:
        """Stop the threads, save what is cheap to save, drop the working files. Idempotent."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        followers = self._registry.by_id().values()
        for follower in followers:
            follower.cancel_build()
        ended = self._around.builder.close(_BUILD_GRACE_S)
        budget = self._around.options.close_snapshot_bytes
        for follower in followers:
            if ended:  # else it may be writing to the same folder
                budget -= follower.save_last(budget)
            follower.close(ReplicaClosedError())
        self._registry.clear()

    # The registry

    def known(self, name: str) -> Replica | None:
        """The replica of a collection, by bare name, from memory: for callers that must not block."""
        follower = self._registry.find(name)
        return follower.replica if follower is not None else None

    def get(self, name: str) -> Replica:
        """The replica of a collection, by bare name. Asks the store once before it says there is none.

        Raises CollectionNotFoundError; UnavailableError when the store would have to be asked and cannot be.
        """
        return self.known(name) or self.find(name)

    def find(self, name: str) -> Replica:
        """The replica of the collection of this bare name in the store now. Raises as get()."""
        known = self._registry.find(name)
        try:
            collection = self._around.store.get_collection(name)
        except CollectionNotFoundError:
            if known is not None:  # else another call has just created it
                self._registry.unname(known)
            raise
        return self._followed(collection)

    def current(self, name: str) -> Replica:
        """As find(); while the store is away, what this process knows. Raises as find()."""
        try:
            return self.find(name)
        except UnavailableError:
            replica = self.known(name)
            if replica is None:
                raise
            return replica

    def complete_list(self) -> Sequence[Replica]:
        """All replicas, by name, as the store has them now; while it is away, as this process knows them.

        Raises UnavailableError when the store has never been asked.
        """
        try:
            followers = [self._register(collection) for collection in self._around.store.list_collections()]
        except UnavailableError:
            if self._initial is None:
                raise
            return self.list()
        return [follower.replica for follower in followers if follower is not None]

    def list(self) -> list[Replica]:
        """All replicas known so far, by name, from memory."""
        return [follower.replica for follower in self._registry.named()]

    def create(self, spec: CollectionSpec) -> Replica:
        """Create a collection in the store; it can be read at once. Raises CollectionExistsError."""
        with self._creations.of(spec.name):
            return self._followed(self._around.store.create_collection(spec), empty=True)

    def delete(self, name: str) -> None:
        """Delete a collection in the store; it is gone at once. Raises CollectionNotFoundError."""
        collection = self._around.store.get_collection(name)
        try:
            self._around.store.delete_collection(collection.id)
        except CollectionNotFoundError:  # another call was faster
            raise CollectionNotFoundError(name) from None
        self._registry.delete(collection)
        self._woken_by(collection.id)

    def progress(self) -> tuple[LoadProgress, ...]:
        """How far the loading of each collection is, by name."""
        return tuple(replica.progress() for replica in self.list())

    def _followed(self, collection: Collection, *, empty: bool = False) -> Replica:
        follower = self._register(collection, empty=empty)
        if follower is None:  # this process has deleted it
            raise CollectionNotFoundError(collection.spec.name)
        return follower.replica

    def _register(self, collection: Collection, *, empty: bool = False) -> Follower | None:
        if not empty and not self._registry.knows(collection):
            self._creations.wait_for(collection.spec.name)
        follower, made = self._registry.enter(collection, empty=empty)
        if made:
            self._woken_by(collection.id)
        return follower

    def _new_follower(self, collection: Collection, empty: bool) -> Follower:
        wake = partial(self._woken_by, collection.id)
        follower = Follower(Replica(collection, wake), self._around, wake)
        if empty:
            attempt(follower.begin_empty)  # it exists: what fails now, the follower thread tries again
        return follower

    def _register_all(self) -> bool:
        """Follow every collection of the store but those being created here. Returns whether any was left out."""
        left_out = False
        for collection in self._around.store.list_collections():
            if self._registry.knows(collection) or not self._creations.under_way(collection.spec.name):
                self._register(collection)
            else:
                left_out = True
        return left_out

    def _drop(self, follower: Follower) -> None:
        self._registry.remove(follower)
        follower.drop()
        log.info("collection is gone", collection=follower.replica.collection.spec.name)

    def _woken_by(self, collection_id: int) -> None:
        """Step this collection soon. Called from any thread; returns at once."""
        with self._lock:
            self._woken.add(collection_id)
        self._wake.set()

    # The follower thread

    def _follow(self) -> None:
        try:
            while not self._stopping:
                if not self._round():
                    self._wake.wait(max(0.0, self._next_poll - time.monotonic()))
        except BaseException as error:  # whatever it was, the process must not go on with a view that stands still
            self._on_death(error)  # first, for logging may be what failed
            log.exception("follower thread died", remedy="The process ends: restart it, and report the traceback.")

    def _round(self) -> bool:
        """Poll when it is time, step everything that has something to do. Returns whether there is more at once."""
        self._wake.clear()
        started, polled_s = time.monotonic(), 0.0
        trouble: Exception | None = None
        with self._lock:
            woken = set(self._woken)
        polling = started >= self._next_poll or not woken <= self._registry.by_id().keys()  # a new collection
        if polling:
            trouble = attempt(self._poll)
            self.held_up = held_up_by(trouble, self.held_up, started)
            polled_s = time.monotonic() - started
        with self._lock:
            woken, self._woken = self._woken, set()
        followers = [follower for one, follower in self._registry.by_id().items() if one in woken]
        more: set[int] = set()
        for follower in followers:
            replica, tried = follower.replica, time.monotonic()
            failure = attempt(partial(self._step, follower, more))
            replica.held_up, trouble = held_up_by(failure, replica.held_up, tried), failure or trouble
            time.sleep(0)  # lets the event loop have the interpreter
        with self._lock:
            self._woken.update(more)
        if polling:
            self._plan_poll(started, polled_s, trouble)
        self._tell_ready()
        return bool(more) and not self._stopping

    def _poll(self) -> None:
        """Ask the store for all heads: notice what was written, created and deleted by anybody."""
        known, deleted = self._registry.by_id(), self._registry.deleted()
        heads = self._around.store.heads()
        now = self.contact_at = time.monotonic()
        strange = bool(heads.keys() - known.keys() - deleted) or self._was_away
        strange = self._was_away = strange and self._register_all()
        for outdated in self._registry.settle(deleted):
            self._drop(outdated)
        for collection_id, follower in known.items():
            head = heads.get(collection_id)
            if head is None:
                self._drop(follower)
            elif follower.wants_step(head, now):
                self._woken_by(collection_id)
            else:
                follower.replica.held_up = None  # it lacks nothing, and nothing will be tried again
        if self._initial is None and not strange:
            self._initial = [follower.replica for follower in self._registry.by_id().values()]
            remove_strays(self._around.snapshots, set(heads))

    def _step(self, follower: Follower, more: set[int]) -> None:
        try:
            if follower.step():
                more.add(follower.replica.collection.id)
        except CollectionNotFoundError:
            self._drop(follower)

    def _plan_poll(self, started: float, polled_s: float, trouble: Exception | None) -> None:
        """Poll again after the interval (longer where polling itself takes long), or after a growing pause."""
        pause = max(self._around.options.poll_interval_s, _POLL_COST * polled_s)
        if trouble is not None:
            if not self._backoff_s and not self._stopping:  # the store is closed beneath us then
                log.warning("following is held up, serving what is loaded", detail=str(trouble), remedy=HELD_UP)
            self._was_away = True
            self._backoff_s = min(_LAST_BACKOFF_S, max(_FIRST_BACKOFF_S, 2 * self._backoff_s))
            pause = max(pause, self._backoff_s)
        elif self._backoff_s:
            log.info("following goes on")
            self._backoff_s = 0.0
        self._next_poll = started + pause

    def _tell_ready(self) -> None:
        if self._initial is not None and not self.ready.is_set():
            live = {follower.replica for follower in self._registry.by_id().values()}
            if all(replica.ready.is_set() for replica in self._initial if replica in live):
                self.ready.set()
