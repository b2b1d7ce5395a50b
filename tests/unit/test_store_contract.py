"""What every store must do, through the interface alone."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from nearshore.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    HistoryChangedError,
    InvalidArgumentError,
    OverloadedError,
    RequestIdReusedError,
    UnavailableError,
    WriteTokenExpiredError,
)
from nearshore.records import (
    Change,
    Collection,
    CollectionSpec,
    Delete,
    Document,
    IndexKind,
    MetadataValue,
    Metric,
    Outline,
    Upsert,
)
from nearshore.store.base import MAX_PAGE_COMMITS, Cursor, Store
from nearshore.store.writer import PRUNE_ROWS
from tests.stores import FACTORIES, SPEC, StoreFactory, live_texts, upsert, walk, writer_held

LONG_S = 3_600.0


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> StoreFactory:
    return FACTORIES[request.param](tmp_path)


@pytest.fixture
def store(factory: StoreFactory) -> Iterator[Store]:
    store = factory.open()
    yield store
    store.close()


@pytest.fixture
def passages(store: Store) -> Collection:
    return store.create_collection(SPEC)


# Collections


def test_a_collection_keeps_its_spec_across_a_restart(factory: StoreFactory) -> None:
    """What was created is found by name and in the list, unchanged, after the store is opened again."""
    spec = CollectionSpec("notes", 384, Metric.DOT, IndexKind.HNSW, "all-MiniLM-L6-v2", "nsf1-00")
    store = factory.open()
    created = store.create_collection(spec)
    store.create_collection(replace(spec, name="a-first"))
    store.close()
    store = factory.open()
    assert store.get_collection("notes") == created
    assert created.spec == spec
    assert [collection.spec.name for collection in store.list_collections()] == ["a-first", "notes"]
    store.close()


def test_a_taken_name_is_refused(store: Store, passages: Collection) -> None:
    """Creating a second collection of one name raises and leaves the first alone."""
    with pytest.raises(CollectionExistsError):
        store.create_collection(replace(SPEC, dimensions=9))
    assert store.list_collections() == [passages]


def test_a_deleted_collection_frees_its_name_but_not_its_id(factory: StoreFactory) -> None:
    """After a deletion the name can be used at once, by a collection with a new id and nothing of the old one."""
    store = factory.open()
    old = store.create_collection(SPEC)
    store.write(old.id, [upsert("a")], "request").result()
    store.delete_collection(old.id)
    store.close()
    store = factory.open()
    new = store.create_collection(SPEC)
    assert new.id > old.id
    assert store.get_items(new.id, ["a"]) == {}
    assert store.heads() == {new.id: Cursor()}
    assert store.find_request(new.id, "request", b"") is None
    store.close()


def test_an_unknown_collection_is_not_found(store: Store, passages: Collection) -> None:
    """Every method that names a collection which is not there raises CollectionNotFoundError."""
    store.write(passages.id, [upsert("a")], "request").result()
    store.delete_collection(passages.id)
    with pytest.raises(CollectionNotFoundError):
        store.get_collection(SPEC.name)
    for gone in (passages.id, 10**9):
        with pytest.raises(CollectionNotFoundError):
            store.delete_collection(gone)
        with pytest.raises(CollectionNotFoundError):
            store.write(gone, [upsert("a")], "request").result()
        with pytest.raises(CollectionNotFoundError):
            store.get_items(gone, ["a"])
        with pytest.raises(CollectionNotFoundError):
            store.get_outlines(gone, ["a"])
        with pytest.raises(CollectionNotFoundError):
            store.list_ids(gone, ["a"])
        with pytest.raises(CollectionNotFoundError):
            store.read_feed(gone, Cursor())
        with pytest.raises(CollectionNotFoundError):
            store.commit_tag(gone, 1)
        with pytest.raises(CollectionNotFoundError):
            store.prune(gone, LONG_S)


# Writes


def test_a_document_comes_back_exactly(factory: StoreFactory) -> None:
    """Text, title, parent, every metadata type, vector and hash survive a restart unchanged."""
    metadata: dict[str, MetadataValue] = {
        "string": "zürich 東京 😀",
        "int": -(2**63),
        "float": 1.0,
        "tiny": 5e-324,
        "true": True,
        "at": datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
        "list": (1, 2),
        "empty": (),
        "t": "a key like a tag",
    }
    document = Document("id/ä", "line\nline", "title", "parent", metadata)
    vector = np.array([np.float32(0.1), -0.0, 1e-45], dtype=np.float32)
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [Upsert(document, vector, b"\x00\xff")]).result()
    store.close()
    store = factory.open()
    item = store.get_items(collection_id, ["id/ä", "absent"])["id/ä"]
    assert item.document == document
    assert [type(value) for value in item.document.metadata.values()] == [type(value) for value in metadata.values()]
    assert item.vector is not None
    assert item.vector.tobytes() == vector.tobytes()
    assert item.content_hash == b"\x00\xff"
    assert item.position == 1
    store.close()


def test_each_write_takes_the_next_position(store: Store, passages: Collection) -> None:
    """Positions count from 1 without a gap, tags differ, times never go back, and a write of nothing counts too."""
    steps: list[list[Change]] = [[upsert("a")], [], [Delete("x")]]
    commits = [store.write(passages.id, changes).result().commit for changes in steps]
    assert [commit.position for commit in commits] == [1, 2, 3]
    assert len({commit.tag for commit in commits}) == 3
    assert commits[0].at <= commits[1].at <= commits[2].at
    assert [store.commit_tag(passages.id, position) for position in (1, 2, 3, 4)] == [c.tag for c in commits] + [None]
    assert store.heads()[passages.id] == Cursor(3, commits[2].tag)


def test_positions_of_collections_are_independent(store: Store, passages: Collection) -> None:
    """A write to one collection leaves the head of another where it was."""
    other = store.create_collection(replace(SPEC, name="other"))
    store.write(passages.id, [upsert("a")]).result()
    assert store.write(other.id, [upsert("a")]).result().commit.position == 1
    assert store.heads()[passages.id].position == 1


def test_an_upsert_replaces_the_whole_document(store: Store, passages: Collection) -> None:
    """Nothing of the replaced document is left: neither title nor metadata."""
    store.write(passages.id, [Upsert(Document("a", "old", "title", "parent", {"k": 1}), np.ones(3, "f4"), b"1")])
    store.write(passages.id, [upsert("a", "new")]).result()
    assert store.get_items(passages.id, ["a"])["a"].document == Document("a", "new")


def test_deleted_counts_the_documents_that_existed(store: Store, passages: Collection) -> None:
    """Absent and already deleted ids do not count."""
    store.write(passages.id, [upsert("a"), upsert("b")]).result()
    assert store.write(passages.id, [Delete("a"), Delete("b"), Delete("c")]).result().deleted == 2
    assert store.write(passages.id, [Delete("a")]).result().deleted == 0
    assert store.get_items(passages.id, ["a", "b"]) == {}


def test_a_conditional_delete_spares_what_changed_since(store: Store, passages: Collection) -> None:
    """unchanged_since deletes at exactly that position or before, and leaves a later write alone."""
    first = store.write(passages.id, [upsert("a"), upsert("b")]).result().commit.position
    store.write(passages.id, [upsert("b", "newer")]).result()
    result = store.write(passages.id, [Delete("a", first), Delete("b", first)]).result()
    assert result.deleted == 1
    assert set(store.get_items(passages.id, ["a", "b"])) == {"b"}


def test_what_was_decided_on_another_history_is_not_done(factory: StoreFactory) -> None:
    """After a restore a write that was decided on a lost commit fails, alone in its group; one decided before holds."""
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    kept = store.write(collection_id, [upsert("a"), upsert("b")]).result().commit
    store.close()
    factory.back_up()
    store = factory.open()
    lost = store.write(collection_id, []).result().commit
    store.close()
    factory.restore()
    store = factory.open()
    store.write(collection_id, [upsert("a", "of the new history")]).result()
    bases = [Cursor(commit.position, commit.tag) for commit in (lost, kept)]
    with writer_held(store, collection_id):
        refused, written = (
            store.write(collection_id, [Delete("a", basis.position), Delete("b", basis.position)], basis=basis)
            for basis in bases
        )
    with pytest.raises(HistoryChangedError):
        refused.result()
    assert written.result().deleted == 1
    assert live_texts(walk(store, collection_id)[0]) == {"a": "of the new history"}
    beyond = Cursor(10**6, lost.tag)
    with pytest.raises(HistoryChangedError):
        store.write(collection_id, [Delete("a")], basis=beyond).result()
    store.close()


def test_one_bad_change_refuses_the_whole_write(store: Store, passages: Collection) -> None:
    """A duplicate id, NUL, lone surrogate, empty id, foreign width or untyped metadata writes nothing at all."""
    good = upsert("good")
    bad: list[list[Change]] = [
        [good, upsert("good", "again")],
        [upsert("good"), Delete("good")],
        [good, upsert("nul\0")],
        [good, upsert("x", "nul\0")],
        [good, upsert("x", "\ud800")],
        [good, Delete("\ud800")],
        [good, upsert("")],
        [good, Upsert(Document("x", "text"), np.ones(4, "f4"), b"")],
        [good, upsert("x", metadata={"k": 2**63})],
        [good, upsert("x", metadata={"k": datetime(2024, 1, 1)})],  # without a zone
        [good, upsert("x", metadata={"k": "\ud800"})],
    ]
    for changes in bad:
        with pytest.raises(InvalidArgumentError):
            store.write(passages.id, changes).result()
    assert store.heads()[passages.id] == Cursor()
    assert store.get_items(passages.id, ["good"]) == {}


def test_a_write_larger_than_a_group_is_still_one_commit(factory: StoreFactory) -> None:
    """max_transaction_rows bounds grouping, never splits one call."""
    store = factory.open(max_transaction_rows=10)
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert(str(number)) for number in range(25)]).result()
    items, page = walk(store, collection_id)
    assert len(items) == 25
    assert page.head.position == 1
    store.close()


# Groups


def test_callers_of_one_group_share_a_position_in_their_order(store: Store, passages: Collection) -> None:
    """In one group the later caller's change of an id wins, and each caller's deleted counts only what it removed."""
    calls: list[list[Change]] = [
        [Delete("a"), Delete("b")],
        [Delete("a"), upsert("b", "back")],
        [Delete("b"), upsert("c", "first")],
        [upsert("c", "second"), Delete("d")],
        [Delete("c", 2)],  # c was written in this group, so after position 2
    ]
    store.write(passages.id, [upsert("a"), upsert("b")]).result()
    with writer_held(store, passages.id):
        futures = [store.write(passages.id, changes) for changes in calls]
    results = [future.result() for future in futures]
    assert len({result.commit for result in results}) == 1
    assert [result.deleted for result in results] == [2, 0, 1, 0, 0]
    assert live_texts(walk(store, passages.id)[0]) == {"c": "second"}


def test_a_group_ends_at_its_maximum_of_rows(factory: StoreFactory) -> None:
    """Calls beyond max_transaction_rows go into the next commit."""
    store = factory.open(max_transaction_rows=4)
    collection_id = store.create_collection(SPEC).id
    with writer_held(store, collection_id):
        futures = [store.write(collection_id, [upsert(f"{n}{m}") for m in range(2)]) for n in range(5)]
    assert [future.result().commit.position for future in futures] == [2, 2, 3, 3, 4]
    store.close()


def test_a_caller_who_left_is_skipped(store: Store, passages: Collection) -> None:
    """A future cancelled while it waits writes nothing; the others of its group are written."""
    with writer_held(store, passages.id):
        left, stayed = store.write(passages.id, [upsert("a")]), store.write(passages.id, [upsert("b")])
        assert left.cancel()
    stayed.result()
    assert set(store.get_items(passages.id, ["a", "b"])) == {"b"}


def test_a_collection_deleted_while_writes_wait(store: Store, passages: Collection) -> None:
    """Writes queued around a deletion either hold or raise CollectionNotFoundError; other collections do not notice."""
    gone = store.create_collection(replace(SPEC, name="gone"))
    with writer_held(store, passages.id):
        futures = [store.write(gone.id, [upsert("a")])]
        deletion = threading.Thread(target=store.delete_collection, args=(gone.id,))
        deletion.start()
        futures += [store.write(gone.id, [upsert("a")]) for _ in range(200)]
        bystander = store.write(passages.id, [upsert("b")])
    deletion.join()
    assert bystander.result().commit.collection_id == passages.id
    assert all(isinstance(f.exception(), CollectionNotFoundError | None) for f in futures)
    with pytest.raises(CollectionNotFoundError):
        store.write(gone.id, [upsert("a")]).result()


def test_a_full_queue_refuses_and_recovers(factory: StoreFactory) -> None:
    """Beyond max_queued_bytes a write is refused with STORE_OVERLOADED; what was accepted is written."""
    store = factory.open(max_queued_bytes=10_000)
    collection_id = store.create_collection(SPEC).id
    with writer_held(store, collection_id):
        accepted = store.write(collection_id, [upsert("a", "x" * 9_000)])
        with pytest.raises(OverloadedError) as refused:
            store.write(collection_id, [upsert("b", "x" * 9_000)]).result()
    assert refused.value.reason == "STORE_OVERLOADED"
    accepted.result()
    store.write(collection_id, [upsert("b", "x" * 9_000)]).result()
    store.write(collection_id, [upsert("c", "x" * 90_000)]).result()  # larger than the queue, but alone in it
    assert set(store.get_items(collection_id, ["a", "b", "c"])) == {"a", "b", "c"}
    store.close()


# Request ids


def test_a_repeated_request_writes_nothing_and_answers_the_same(factory: StoreFactory) -> None:
    """The same request id returns the first result, also after a restart and after later writes."""
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, [upsert("a")]).result()
    first = store.write(collection_id, [upsert("a", "mine"), Delete("z")], "request", b"digest").result()
    store.write(collection_id, [upsert("a", "later")]).result()
    store.close()
    store = factory.open()
    assert store.write(collection_id, [upsert("a", "mine")], "request", b"digest").result() == first
    assert store.find_request(collection_id, "request", b"digest") == first
    assert store.find_request(collection_id, "other", b"digest") is None
    assert store.get_items(collection_id, ["a"])["a"].document == Document("a", "later")
    assert store.heads()[collection_id].position == 3
    store.close()


def test_a_request_repeated_inside_one_group_is_written_once(store: Store, passages: Collection) -> None:
    """Two calls of one request id in one group get one result, with the first one's count."""
    store.write(passages.id, [upsert("a")]).result()
    with writer_held(store, passages.id):
        futures = [store.write(passages.id, [Delete("a")], "request") for _ in range(3)]
    results = [future.result() for future in futures]
    assert results[0].deleted == 1
    assert results == [results[0]] * 3
    with writer_held(store, passages.id):
        again = store.write(passages.id, [Delete("a")], "request")
    assert again.result() == results[0]
    assert store.heads()[passages.id].position == results[0].commit.position + 1  # the holding write, nothing else


def test_a_request_id_with_another_digest_is_refused(store: Store, passages: Collection) -> None:
    """A reused request id raises REQUEST_ID_REUSED, in the same group too, and hurts no other caller."""
    with writer_held(store, passages.id):
        futures = [store.write(passages.id, [upsert(key)], "request", key.encode()) for key in ("a", "b")]
        bystander = store.write(passages.id, [upsert("c")])
    futures[0].result()
    bystander.result()
    with pytest.raises(RequestIdReusedError):
        futures[1].result()
    with pytest.raises(RequestIdReusedError):
        store.find_request(passages.id, "request", b"b")
    assert set(store.get_items(passages.id, ["a", "b", "c"])) == {"a", "c"}


def test_a_request_id_belongs_to_one_collection(store: Store, passages: Collection) -> None:
    """The same request id in another collection is another request."""
    other = store.create_collection(replace(SPEC, name="other"))
    store.write(passages.id, [upsert("a")], "request").result()
    store.write(other.id, [upsert("b")], "request").result()
    assert set(store.get_items(other.id, ["b"])) == {"b"}


# The feed


def test_the_feed_of_an_empty_collection_is_complete(store: Store, passages: Collection) -> None:
    """Before the first write the head is position 0 without a tag or time."""
    page = store.read_feed(passages.id, Cursor())
    assert (list(page.items), page.head, page.head_at, page.next) == ([], Cursor(), None, None)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1_000])
def test_the_feed_pages_in_the_order_of_position_and_id(store: Store, passages: Collection, limit: int) -> None:
    """Whatever the page size, a walk gives each id once, at its last position, tombstones included."""
    store.write(passages.id, [upsert(key) for key in ("b", "a", "ä", "Z")]).result()
    store.write(passages.id, [upsert("a", "again"), Delete("b")]).result()
    last = store.write(passages.id, [upsert("c")]).result().commit
    items, page = walk(store, passages.id, limit=limit)
    assert [(item.position, item.id) for item in items] == [(1, "Z"), (1, "ä"), (2, "a"), (2, "b"), (3, "c")]
    assert [item.id for item in items if item.document is None] == ["b"]
    assert page.head == Cursor(3, last.tag)
    assert page.head_at == last.at
    assert [item.id for item in walk(store, passages.id, Cursor(2, store.commit_tag(passages.id, 2) or b""))[0]] == [
        "c"
    ]


def test_rows_that_move_ahead_during_a_walk_are_met_again(store: Store, passages: Collection) -> None:
    """A document rewritten or deleted behind the walk's back appears again before the walk ends."""
    store.write(passages.id, [upsert(key) for key in "abcd"]).result()
    page = store.read_feed(passages.id, Cursor(), None, 2)
    items = list(page.items)
    store.write(passages.id, [upsert("a", "new"), Delete("b"), upsert("d", "moved")]).result()
    while page.next is not None:
        page = store.read_feed(passages.id, Cursor(), page.next, 2)
        items.extend(page.items)
    assert live_texts(items) == {"a": "new", "c": "text", "d": "moved"}
    assert page.head.position == 2


def test_the_pages_of_a_walk_name_the_commits_that_each_saw_anew(store: Store, passages: Collection) -> None:
    """A page's commits are those behind the cursor or the page before, each with its tag, in order."""
    made = [store.write(passages.id, [upsert(key)]).result().commit for key in "abc"]
    first = store.read_feed(passages.id, Cursor(1, made[0].tag), None, 1)
    assert list(first.commits) == [Cursor(commit.position, commit.tag) for commit in made[1:]]
    made.append(store.write(passages.id, [Delete("b"), upsert("d")]).result().commit)
    second = store.read_feed(passages.id, Cursor(1, made[0].tag), first.next, 1)
    assert list(second.commits) == [Cursor(4, made[3].tag)]
    third = store.read_feed(passages.id, Cursor(1, made[0].tag), second.next, 9)
    assert (list(third.commits), third.next) == ([], None)


def test_a_page_names_a_bounded_number_of_commits(store: Store, passages: Collection) -> None:
    """After many commits a page has the newest of them."""
    writes = [store.write(passages.id, [upsert("a")]) for _ in range(MAX_PAGE_COMMITS + 2)]
    head = max(write.result().commit.position for write in writes)
    while head < MAX_PAGE_COMMITS + 2:  # those that were queued together shared a commit
        head = store.write(passages.id, [upsert("a")]).result().commit.position
    page = store.read_feed(passages.id, Cursor())
    assert [commit.position for commit in page.commits] == list(range(head - MAX_PAGE_COMMITS + 1, head + 1))
    assert page.commits[-1] == page.head


def test_a_page_of_large_documents_stays_small(store: Store, passages: Collection) -> None:
    """A page ends at some megabytes even when more rows were asked for, and the walk goes on behind it."""
    large = "x" * (6 << 20)
    for key in "abcde":
        store.write(passages.id, [upsert(key, large)]).result()
    page = store.read_feed(passages.id, Cursor())
    assert 0 < len(page.items) < 5
    assert page.next is not None
    assert [item.id for item in walk(store, passages.id)[0]] == list("abcde")


def test_a_cursor_of_another_history_is_refused(factory: StoreFactory) -> None:
    """After a restore, cursors beyond head or with the tag of a lost commit are recognised, common ones are good."""
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    common = store.write(collection_id, [upsert("a")]).result().commit
    store.close()
    factory.back_up()
    store = factory.open()
    lost = [store.write(collection_id, [upsert("b", str(number))]).result().commit for number in range(2)]
    store.close()
    factory.restore()
    store = factory.open()
    store.write(collection_id, [upsert("c")]).result()
    for commit in lost:  # the first has another tag here, the second lies beyond head
        with pytest.raises(HistoryChangedError):
            store.read_feed(collection_id, Cursor(commit.position, commit.tag))
        assert store.commit_tag(collection_id, commit.position) != commit.tag
    assert [item.id for item in walk(store, collection_id, Cursor(common.position, common.tag))[0]] == ["c"]
    store.close()


def test_a_walk_does_not_go_on_in_another_history(factory: StoreFactory) -> None:
    """Pages read before a restore that lost their commits cannot be completed after it, even from a common cursor."""
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    common = store.write(collection_id, [upsert("a")]).result().commit
    store.close()
    factory.back_up()
    for cursor in (Cursor(), Cursor(common.position, common.tag)):
        store = factory.open()
        store.write(collection_id, [upsert("b"), upsert("c")]).result()
        page = store.read_feed(collection_id, cursor, None, 1)
        store.write(collection_id, [upsert("d"), upsert("e")]).result()
        assert page.next is not None
        page = store.read_feed(collection_id, cursor, page.next, 1)
        store.close()
        factory.restore()
        store = factory.open()
        with pytest.raises(HistoryChangedError):
            store.read_feed(collection_id, cursor, page.next, 1)
        store.write(collection_id, [upsert("x"), upsert("y")]).result()
        store.write(collection_id, [upsert("z")]).result()
        with pytest.raises(HistoryChangedError):
            store.read_feed(collection_id, cursor, page.next, 1)
        store.close()
        factory.restore()


# Pruning


def test_pruning_forgets_what_is_old_and_keeps_the_rest(store: Store, passages: Collection) -> None:
    """Tombstones, commits and requests at or below the floor go; documents, the newest commit and its tag stay."""
    store.write(passages.id, [upsert("a"), upsert("b")], "old").result()
    deletion = store.write(passages.id, [Delete("a")]).result().commit
    last = store.write(passages.id, [upsert("c")], "new").result().commit
    assert store.prune(passages.id, LONG_S) == 0
    assert store.prune(passages.id, -LONG_S) == 3
    assert [(item.id, item.position) for item in walk(store, passages.id)[0]] == [("b", 1), ("c", 3)]
    assert store.commit_tag(passages.id, 3) == last.tag
    assert walk(store, passages.id, Cursor(3, last.tag))[0] == []
    with pytest.raises(HistoryChangedError):
        store.read_feed(passages.id, Cursor(deletion.position, deletion.tag))
    with pytest.raises(WriteTokenExpiredError) as expired:
        store.commit_tag(passages.id, 2)
    assert expired.value.metadata == {"collection_id": str(passages.id), "position": "2"}
    assert store.find_request(passages.id, "old", b"") is None
    assert store.find_request(passages.id, "new", b"") is not None
    assert store.write(passages.id, []).result().commit.position == 4
    assert store.prune(passages.id, LONG_S) == 3  # never back


@pytest.mark.parametrize("commits", [1, 5])
def test_pruning_lets_writes_in_between_small_steps(store: Store, passages: Collection, commits: int) -> None:
    """However many tombstones one commit left, a write that comes meanwhile waits for a few of them at most."""
    keys = [str(number) for number in range(3 * PRUNE_ROWS)]
    store.write(passages.id, [upsert(key) for key in keys]).result()
    for number in range(commits):
        deletion = store.write(passages.id, [Delete(key) for key in keys[number::commits]], f"{number}").result().commit
    left = [len(keys)]
    done = threading.Event()

    def write_another(_: int) -> None:  # so that one always waits while a step is at work
        left.append(sum(item.document is None for item in walk(store, passages.id)[0]))
        if left[-1]:
            store.write(passages.id, [])
        else:
            done.set()

    store.write(passages.id, []).result()  # the commit at the floor stays
    store.watch(write_another)
    store.write(passages.id, [])
    floor = store.prune(passages.id, -LONG_S)
    assert done.wait(LONG_S)
    assert max(before - after for before, after in itertools.pairwise(left)) == PRUNE_ROWS
    assert floor >= deletion.position
    assert store.find_request(passages.id, "0", b"") is None


def test_a_walk_during_which_tombstones_were_pruned_is_refused(store: Store, passages: Collection) -> None:
    """A document delivered, deleted and forgotten in mid-walk would live on in the follower: it must start again."""
    store.write(passages.id, [upsert(key) for key in "abc"]).result()
    page = store.read_feed(passages.id, Cursor(), None, 1)
    store.write(passages.id, [Delete("a")]).result()
    store.write(passages.id, [upsert("d")]).result()
    page = store.read_feed(passages.id, Cursor(), page.next, 1)
    store.prune(passages.id, -LONG_S)
    with pytest.raises(HistoryChangedError):
        store.read_feed(passages.id, Cursor(), page.next, 1)
    assert live_texts(walk(store, passages.id, limit=1)[0]).keys() == set("bcd")


def test_an_old_floor_does_not_stop_a_walk(store: Store, passages: Collection) -> None:
    """Pruning up to a position that the walk had already seen when it began leaves the walk valid."""
    store.write(passages.id, [upsert(key) for key in "abc"]).result()
    store.write(passages.id, [Delete("a")]).result()
    page = store.read_feed(passages.id, Cursor(), None, 1)
    store.prune(passages.id, -LONG_S)
    items = list(page.items)
    while page.next is not None:
        page = store.read_feed(passages.id, Cursor(), page.next, 1)
        items.extend(page.items)
    assert live_texts(items).keys() == set("bc")


# Watching and closing


def test_watchers_hear_of_each_commit_after_it_holds(store: Store, passages: Collection) -> None:
    """A watcher that is called can read the commit; one that fails stops neither the others nor the writes."""
    heard: list[int] = []
    done = threading.Event()

    def broken(_: int) -> None:
        raise ValueError("a watcher's mistake")

    def listen(collection_id: int) -> None:
        heard.append(store.heads()[collection_id].position)
        done.set()

    store.watch(broken)
    store.watch(listen)
    store.write(passages.id, [upsert("a")]).result()
    assert done.wait(10)
    assert heard == [1]
    store.write(passages.id, [upsert("b")]).result()


def test_closing_writes_what_was_queued(factory: StoreFactory) -> None:
    """close() returns only when every accepted write is durable; a second close does nothing."""
    store = factory.open(max_transaction_rows=1)
    collection_id = store.create_collection(SPEC).id
    futures = [store.write(collection_id, [upsert(str(number))]) for number in range(50)]
    store.close()
    store.close()
    assert all(future.done() and future.exception() is None for future in futures)
    store = factory.open()
    assert len(walk(store, collection_id)[0]) == 50
    store.close()


def test_a_closed_store_is_unavailable(factory: StoreFactory) -> None:
    """After close() every call raises UnavailableError."""
    store = factory.open()
    collection_id = store.create_collection(SPEC).id
    store.write(collection_id, []).result()
    store.close()
    with pytest.raises(UnavailableError):
        store.write(collection_id, [upsert("a")]).result()
    with pytest.raises(UnavailableError):
        store.create_collection(replace(SPEC, name="other"))
    with pytest.raises(UnavailableError):
        store.list_collections()
    with pytest.raises(UnavailableError):
        store.read_feed(collection_id, Cursor())


def test_commit_times_lie_around_now(store: Store, passages: Collection) -> None:
    """A commit's time is the store's clock in UTC."""
    before = datetime.now(UTC)
    at = store.write(passages.id, []).result().commit.at
    assert before - timedelta(seconds=1) <= at <= datetime.now(UTC) + timedelta(seconds=1)


# Comparing


def test_an_outline_tells_all_but_the_text(store: Store, passages: Collection) -> None:
    """Hash, parent and metadata of live documents, every type kept; absent and deleted ids have none."""
    metadata: dict[str, MetadataValue] = {"n": 1, "x": 1.0, "at": datetime(2024, 2, 29, tzinfo=UTC), "l": ("a", "b")}
    document = Document("id/ä", "text", "title", "parent", metadata)
    vector = np.ones(3, np.float32)
    changes: list[Change] = [Upsert(document, vector, b"\x00\xff"), Upsert(Document("plain", "text"), vector, b"")]
    store.write(passages.id, [*changes, upsert("gone")]).result()
    store.write(passages.id, [Delete("gone")]).result()
    outlines = store.get_outlines(passages.id, ["id/ä", "plain", "gone", "never"])
    assert outlines == {"id/ä": Outline(b"\x00\xff", "parent", metadata), "plain": Outline(b"", "", {})}
    found = outlines["id/ä"].metadata
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in metadata.items()}
    assert store.get_outlines(passages.id, []) == {}


def test_ids_are_listed_by_their_beginnings(store: Store, passages: Collection) -> None:
    """Live ids of this collection alone, each once; a prefix is no pattern, and code points order it."""
    other = store.create_collection(replace(SPEC, name="other"))
    store.write(other.id, [upsert("a#9")]).result()
    ids = [
        "a",
        "a#1",
        "a#2",
        "a#10",
        "a$",
        "a_b#1",
        "axb#1",
        "a%#1",
        "ä#1",
        "😀#1",
        "😀",
        "\U0010ffff",
        "\U0010ffff!",
        "A#1",
    ]
    store.write(passages.id, [upsert(each) for each in [*ids, "a#gone"]]).result()
    store.write(passages.id, [Delete("a#gone")]).result()

    def listed(*prefixes: str) -> list[str]:
        return sorted(store.list_ids(passages.id, prefixes))

    assert listed("a#") == ["a#1", "a#10", "a#2"]
    assert listed("a#", "a#1", "A#", "none#") == ["A#1", "a#1", "a#10", "a#2"]
    assert listed("a_b#") == ["a_b#1"]
    assert listed("a%") == ["a%#1"]
    assert listed("ä", "😀") == ["ä#1", "😀", "😀#1"]
    assert listed("\U0010ffff") == ["\U0010ffff", "\U0010ffff!"]
    assert listed("") == sorted(ids)
    assert listed() == []
