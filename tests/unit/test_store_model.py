"""The store against a plain dict, under random operations and under threads; followers must never see a wrong state."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nearshore.errors import HistoryChangedError
from nearshore.records import Change, Delete, Item, Upsert
from nearshore.store.base import Cursor, FeedPage, Store, Walk
from tests.postgres import ABSENT, programs
from tests.stores import FACTORIES, SPEC, StoreFactory, upsert, writer_held

KEYS = st.sampled_from([f"key-{number}" for number in range(8)])
TEXTS = st.text(alphabet="abcä", max_size=6)
CHANGES = st.dictionaries(KEYS, st.none() | TEXTS, max_size=5)
DELETE_SINCE = st.none() | st.integers(0, 30)
SIXTY_KEYS = [f"key-{number}" for number in range(60)]
Known = tuple[int, str]
"""position and text of a live document"""


@dataclass
class Follower:
    """Applies pages the way a replica does: it stages them, and publishes at the end of a walk."""

    store: Store
    collection_id: int
    cursor: Cursor = field(default_factory=Cursor)
    resume: Walk | None = None
    staged: dict[str, Known] = field(default_factory=dict)
    restarts: int = 0

    def read(self, limit: int) -> FeedPage | None:
        """Apply one page; None when history changed and the follower starts over."""
        try:
            page = self.store.read_feed(self.collection_id, self.cursor, self.resume, limit)
        except HistoryChangedError:
            self.cursor, self.resume, self.staged = Cursor(), None, {}
            self.restarts += 1
            return None
        for item in page.items:
            self._apply(item)
        self.resume = page.next
        if page.next is None:
            self.cursor = page.head
        return page

    def _apply(self, item: Item) -> None:
        if item.document is None:
            self.staged.pop(item.id, None)
        else:
            self.staged[item.id] = (item.position, item.document.text)


class StoreMachine(RuleBasedStateMachine):
    """Random writes, groups, restarts, prunes and restores beside a follower that reads a page now and then."""

    factory_name = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.factory: StoreFactory = FACTORIES[self.factory_name](self.folder)

    @initialize()
    def start(self) -> None:
        self.store = self.factory.open()
        self.collection_id = self.store.create_collection(SPEC).id
        self.model: dict[str, Known] = {}
        self.head = 0
        self.backup: tuple[dict[str, Known], int] | None = None
        self.follower = Follower(self.store, self.collection_id)

    @rule(changes=CHANGES, since=DELETE_SINCE)
    def write(self, changes: dict[str, str | None], since: int | None) -> None:
        future = self.store.write(self.collection_id, to_changes(changes, since))
        result = future.result()
        self.head += 1
        assert result.commit.position == self.head
        assert result.deleted == self.apply(changes, since)

    @rule(calls=st.lists(st.tuples(CHANGES, DELETE_SINCE), min_size=2, max_size=4))
    def write_group(self, calls: list[tuple[dict[str, str | None], int | None]]) -> None:
        with writer_held(self.store, self.collection_id):
            futures = [self.store.write(self.collection_id, to_changes(*call)) for call in calls]
        self.head += 2  # the holding write and the group
        for future, call in zip(futures, calls, strict=True):
            result = future.result()
            assert result.commit.position == self.head
            assert result.deleted == self.apply(*call)

    @rule(limit=st.integers(1, 4))
    def follow(self, limit: int) -> None:
        page = self.follower.read(limit)
        if page is not None and page.next is None:
            assert page.head.position == self.head
            assert self.follower.staged == self.model

    @rule()
    def prune(self) -> None:
        assert self.store.prune(self.collection_id, -3_600.0) == self.head

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.open()

    @rule()
    def back_up(self) -> None:
        if self.backup is None:
            self.store.close()
            self.factory.back_up()
            self.backup = (dict(self.model), self.head)
            self.open()

    @rule(write_after=st.booleans())
    def restore(self, write_after: bool) -> None:
        if self.backup is None:
            return
        self.store.close()
        self.factory.restore()
        self.model, self.head = dict(self.backup[0]), self.backup[1]
        self.open()
        if write_after:
            self.write({"key-0": "after the restore"}, None)

    @invariant()
    def items_agree(self) -> None:
        items = self.store.get_items(self.collection_id, [f"key-{number}" for number in range(8)])
        seen = {key: (item.position, item.document.text) for key, item in items.items() if item.document is not None}
        assert seen == self.model

    def teardown(self) -> None:
        while (page := self.follower.read(2)) is None or page.next is not None:
            pass
        assert self.follower.staged == self.model
        self.store.close()
        shutil.rmtree(self.folder)

    def open(self) -> None:
        self.store = self.factory.open()
        self.follower.store = self.store

    def apply(self, changes: dict[str, str | None], since: int | None) -> int:
        """Do to the model what the store did at self.head. Returns how many documents were deleted."""
        deleted = 0
        for key, text in changes.items():
            if text is not None:
                self.model[key] = (self.head, text)
            elif key in self.model and (since is None or self.model[key][0] <= since):
                del self.model[key]
                deleted += 1
        return deleted


def to_changes(changes: dict[str, str | None], since: int | None) -> list[Change]:
    """An Upsert for each text, a Delete for each None."""
    return [Delete(key, since) if text is None else upsert(key, text) for key, text in changes.items()]


class PostgresMachine(StoreMachine):
    """The same on PostgreSQL."""

    factory_name = "postgresql"


TestSqliteStore = StoreMachine.TestCase
TestSqliteStore.settings = settings(max_examples=25, stateful_step_count=25)
TestPostgresStore = pytest.mark.skipif(programs() is None, reason=ABSENT)(PostgresMachine.TestCase)
TestPostgresStore.settings = settings(TestSqliteStore.settings, max_examples=6, stateful_step_count=20)


@dataclass
class Log:
    """Everything that was acknowledged: what each position did to each key."""

    entries: dict[str, list[tuple[int, str | None]]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, position: int, changes: list[Change]) -> None:
        """Note changes that were acknowledged at position."""
        with self.lock:
            for change in changes:
                if isinstance(change, Upsert):
                    self.entries[change.document.id].append((position, change.document.text))
                else:
                    self.entries[change.id].append((position, None))

    def allowed(self, key: str, head: int) -> set[Known | None]:
        """What key may be at head: the last position wins; callers of one position may have come in any order."""
        before = [entry for entry in self.entries[key] if entry[0] <= head]
        last = max((position for position, _ in before), default=0)
        found = {(position, text) if text is not None else None for position, text in before if position == last}
        return found or {None}


def write_randomly(store: Store, collection_id: int, seed: int, log: Log) -> None:
    """80 writes of 1 to 6 of 60 keys."""
    source = random.Random(seed)
    for number in range(80):
        changes: list[Change] = [
            Delete(key) if source.random() < 0.4 else upsert(key, f"{seed}/{number}/{key}")
            for key in source.sample(SIXTY_KEYS, source.randint(1, 6))
        ]
        log.add(store.write(collection_id, changes).result().commit.position, changes)


def follow_randomly(follower: Follower, seed: int, written: threading.Event) -> list[tuple[int, dict[str, Known]]]:
    """Everything published, up to a walk that began after the last write; waits for a commit between two walks."""
    source = random.Random(seed)
    committed = threading.Event()
    follower.store.watch(lambda _: committed.set())
    published: list[tuple[int, dict[str, Known]]] = []
    last = False
    while True:
        page = follower.read(source.randint(1, 9))
        if page is None or page.next is not None:
            continue
        published.append((page.head.position, dict(follower.staged)))
        if last:
            return published
        last = written.is_set()
        if not last:
            committed.wait()
            committed.clear()


@pytest.mark.parametrize("name", FACTORIES)
def test_followers_beside_four_writers_publish_only_true_states(name: str, tmp_path: Path) -> None:
    """While four threads write and one prunes, whatever a follower publishes is exactly the state at that head."""
    store = FACTORIES[name](tmp_path).open()
    collection_id = store.create_collection(SPEC).id
    log, written = Log(), threading.Event()
    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write_randomly, store, collection_id, seed, log) for seed in range(4)]
        followers = [pool.submit(follow_randomly, Follower(store, collection_id), seed, written) for seed in range(2)]
        for _ in range(10):
            store.prune(collection_id, 0.05)
        wait(writers)
        written.set()
        head = store.heads()[collection_id].position
        store.write(collection_id, []).result()  # wakes the followers
        for writer in writers:
            writer.result()
        published = [follower.result() for follower in followers]
    store.close()
    assert all(states[-1][0] >= head for states in published)
    for position, state in itertools.chain.from_iterable(published):
        for key in SIXTY_KEYS:
            assert state.get(key) in log.allowed(key, position), (position, key)
