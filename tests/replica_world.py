"""A real store and a follower that a test drives step by step, with a plain model of what must be visible."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from nearshore.errors import UnavailableError
from nearshore.index import IndexOptions
from nearshore.index.filters import parse
from nearshore.records import Change, Collection, CollectionSpec, Commit, Delete, Document, IndexKind, Metadata, Upsert
from nearshore.replica import Replica, ReplicaOptions, Replicas, ReplicaView
from nearshore.replica.builder import Builder, Task
from nearshore.replica.follow import Follower, Surroundings
from nearshore.store.base import Store
from nearshore.store.sqlite import SqliteStore
from tests.waiting import WAIT_S

DIMENSIONS = 4
SMALL = ReplicaOptions(
    index=IndexOptions(exact_rows=20, max_tail_rows=10), snapshot_min_rows=1, snapshot_interval_s=0.0, page_rows=7
)


def open_store(folder: Path) -> SqliteStore:
    """A store in `folder`."""
    return SqliteStore.open(
        folder, max_transaction_rows=1_000, max_transaction_bytes=4 << 20, max_queued_bytes=64 << 20
    )


def spec(name: str = "c", kind: IndexKind = IndexKind.HNSW) -> CollectionSpec:
    """A small collection with vectors of the caller's."""
    return CollectionSpec(name, DIMENSIONS, index_kind=kind)


def document(key: int, version: int) -> Document:
    """The document with this key, in one of its versions; every field tells which."""
    metadata: Metadata = {
        "version": version,
        "half": version / 2,
        "even": version % 2 == 0,
        "tags": (f"v{version}", "ü"),
    }
    return Document(f"id-{key:03d}", f"text {version}", f"title {version}", f"parent-{key % 3}", metadata)


def upsert(key: int, version: int) -> Upsert:
    """Write that version."""
    vector = np.random.default_rng((key, version)).standard_normal(DIMENSIONS).astype(np.float32)
    return Upsert(document(key, version), vector / np.linalg.norm(vector), b"h" * 16)


class SwitchableStore:
    """A store that can be away, or be exchanged for another one under its readers."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.away = False
        self.missed = threading.Event()  # somebody asked while it was away
        self.error: Exception = UnavailableError("The store is away.", "Wait.")
        self.rows_read = 0

    def __getattr__(self, name: str) -> Any:
        if self.away:
            self.missed.set()
            raise self.error
        value = getattr(self.inner, name)
        return self._counted(value) if name == "read_feed" else value

    def _counted(self, read_feed: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            page = read_feed(*arguments, **named)
            self.rows_read += len(page.items)
            return page

        return counted

    @property
    def store(self) -> Store:
        """Itself, as what it stands for."""
        return cast(Store, self)


class HandBuilder(Builder):
    """Runs a task when the test says so, in the test's thread."""

    def __init__(self) -> None:
        super().__init__(on_death=print)
        self.tasks: list[tuple[Task, Callable[[], None]]] = []

    def submit(self, task: Task, on_done: Callable[[], None]) -> None:
        self.tasks.append((task, on_done))

    def run_one(self) -> None:
        """Run the oldest task, if there is one."""
        if self.tasks:
            task, on_done = self.tasks.pop(0)
            task.run()
            on_done()


@dataclass
class World:
    """One collection, its follower, and for each position what a reader has to see there."""

    store: SwitchableStore
    collection: Collection
    folder: Path
    options: ReplicaOptions = SMALL
    expected: dict[int, dict[str, Document]] = field(default_factory=lambda: {0: {}})
    builder: HandBuilder = field(default_factory=HandBuilder)
    last: Commit | None = None
    now: float = 0.0  # the replica's clock, seconds

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new process on the same folder: nothing but the store and the snapshots is left."""
        scratch = self.folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self.builder = HandBuilder()
        around = Surroundings(self.store.store, scratch, self.folder / "snapshots", self.options, self.builder)
        self.replica = Replica(self.collection, lambda: None, lambda: self.now)
        self.follower = Follower(self.replica, around, lambda: None)

    def write(self, changes: Sequence[Change]) -> Commit:
        """One commit."""
        commit = self.store.inner.write(self.collection.id, changes).result(WAIT_S).commit
        state = dict(self.expected[max(self.expected)])
        for change in changes:
            if isinstance(change, Upsert):
                state[change.document.id] = change.document
            else:
                state.pop(change.id, None)
        self.expected[commit.position], self.last = state, commit
        return commit

    def apply(self) -> None:
        """Step until the feed is read or paused; nothing is built."""
        while self.follower.step():
            pass

    def settle(self) -> None:
        """Step and build until there is nothing left to do."""
        while self.follower.step() or self.builder.tasks:
            self.builder.run_one()

    def fill_build_memory(self) -> None:
        """A new process with a build that is due and not run, and as much written since as one build may take."""
        index = replace(SMALL.index, build_memory_bytes=64 << 10)
        self.options = replace(SMALL, index=index)
        self.restart()
        self.write([upsert(key, 0) for key in range(20)])
        self.apply()
        large = upsert(60, 0)
        text = "x" * index.build_memory_bytes
        self.write([replace(large, document=replace(large.document, text=text))])
        self.apply()

    def check(self) -> None:
        """The view, lookups, lists, counts and searches show exactly the state at the view's position."""
        check(self.replica, self.expected[self.replica.view().position])

    @property
    def snapshots(self) -> Path:
        """Where the collection's snapshots lie."""
        return self.folder / "snapshots" / str(self.collection.id)


def shown(view: ReplicaView) -> list[Document]:
    """All documents that a view holds, by id; one that it held twice would be there twice."""
    rows = np.flatnonzero(view.index.alive)
    return sorted(view.documents(rows), key=lambda one: one.id)


def check(replica: Replica, expected: dict[str, Document]) -> None:
    """Every way of reading `replica` shows exactly `expected`."""
    in_order = sorted(expected.values(), key=lambda one: one.id)
    view = replica.view()
    assert shown(view) == in_order
    view, rows = replica.lookup([*expected, "absent"])
    assert view.documents(rows[:-1]) == list(expected.values())
    assert rows[-1] == -1
    for one, row in zip(expected.values(), rows, strict=False):
        vector = upsert(int(one.id.split("-")[1]), _version(one)).vector
        np.testing.assert_array_equal(view.vectors([row])[0], vector)
        found = view.index.search(vector, k=1)
        assert view.ids(found.rows) == [one.id]
    _check_lists(replica, in_order)


def _version(one: Document) -> int:
    version = one.metadata["version"]
    assert isinstance(version, int)
    return version


def _check_lists(replica: Replica, in_order: list[Document]) -> None:
    even = parse("even = true")
    for condition, wanted in ((None, in_order), (even, [one for one in in_order if one.metadata["even"]])):
        listed: list[Document] = []
        more = True
        while more:
            view, rows, more = replica.list_page(listed[-1].id if listed else "", 3, condition)
            listed += view.documents(rows)
        assert listed == wanted
        assert replica.count(condition)[1] == len(wanted)


def open_replicas(store: Store, folder: Path, deaths: list[BaseException], options: ReplicaOptions = SMALL) -> Replicas:
    """Replicas with their threads running and everything loaded."""
    replicas = Replicas.open(store, folder, options, deaths.append)
    replicas.start()
    assert replicas.ready.wait(WAIT_S), deaths
    return replicas


def scratch_folder() -> Path:
    """A folder of one hypothesis example; the caller removes it."""
    return Path(tempfile.mkdtemp())


def delete(key: int) -> Delete:
    """Delete that document."""
    return Delete(document(key, 0).id)
