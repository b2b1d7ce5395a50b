"""Collections that another replica creates, deletes and replaces, as callers of this one meet them.

The other replica is its effect on the store, which is all that this one can know of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearshore.documents.errors import TooManyCollectionsError
from nearshore.documents.limits import Limits
from nearshore.documents.requests import (
    CollectionDescription,
    CollectionInput,
    CountRequest,
    DeleteRequest,
    GetRequest,
    ListCollectionsRequest,
)
from nearshore.errors import CollectionNotFoundError, HistoryChangedError
from nearshore.records import Collection, CollectionSpec
from tests.engine import DIMENSIONS, Engine

SPEC = CollectionSpec("docs", DIMENSIONS)
NAME = "collections/docs"
WAIT_S = 20.0  # only a bug reaches it
ONE = np.ones((1, DIMENSIONS), np.float32)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path, limits=Limits(max_collections=3)) as engine:
        yield engine


def replaced(engine: Engine) -> str:
    """The token of a write to a collection that this replica knows and that another one has replaced since."""
    engine.create("docs")
    token = engine.put(NAME, ["a"], ONE)
    engine.run(engine.documents.get(GetRequest(NAME, ["a"], read_after=[token])))
    engine.store.delete_collection(engine.replicas.get("docs").collection.id)
    engine.store.create_collection(SPEC)
    return token


def test_a_collection_just_created_elsewhere_can_be_read(engine: Engine) -> None:
    """It is looked up in the store, and its first view is waited for."""
    engine.store.create_collection(SPEC)
    assert engine.run(engine.documents.count(CountRequest(NAME))).count == 0


def test_a_write_goes_to_the_namesake(engine: Engine) -> None:
    """A collection deleted and created again elsewhere is written to and read at once, however old our memory is."""
    replaced(engine)
    token = engine.put(NAME, ["b"], ONE)
    found = engine.run(engine.documents.get(GetRequest(NAME, ["a", "b"], read_after=[token])))
    assert [document.id for document in found.documents] == ["b"]


def test_a_delete_goes_to_the_namesake(engine: Engine) -> None:
    """By ids and by filter."""
    replaced(engine)
    assert engine.run(engine.documents.delete(DeleteRequest(NAME, filter='id != "b"'))).deleted_count == 0
    assert engine.run(engine.documents.delete(DeleteRequest(NAME, ids=["a"]))).deleted_count == 0


def test_a_token_finds_the_namesake(engine: Engine) -> None:
    """A reader that carries a token of the new collection never gets the old one's documents or a refusal."""
    replaced(engine)
    collection = engine.store.get_collection("docs")
    write = engine.store.write(collection.id, []).result()
    found = engine.run(engine.documents.get(GetRequest(NAME, ["a"], read_after=[write.commit.token.encode()])))
    assert (found.documents, found.missing_ids) == ([], ["a"])


def test_a_token_of_the_old_collection_is_refused(engine: Engine) -> None:
    """Once this replica knows of the new one: it will never come true."""
    token = replaced(engine)
    engine.run(engine.collections.get(NAME))
    with pytest.raises(HistoryChangedError):
        engine.run(engine.documents.get(GetRequest(NAME, ["a"], read_after=[token])))


def test_a_description_and_the_list_are_the_stores(engine: Engine) -> None:
    """Whoever administers collections sees what was created and deleted elsewhere at once."""
    replaced(engine)
    collection = engine.store.get_collection("docs")
    assert engine.run(engine.collections.get(NAME)).uid == collection.id
    engine.store.delete_collection(collection.id)
    engine.store.create_collection(CollectionSpec("other", DIMENSIONS))
    with pytest.raises(CollectionNotFoundError):
        engine.run(engine.collections.get(NAME))
    listed = engine.run(engine.collections.list(ListCollectionsRequest())).collections
    assert [each.name for each in listed] == ["collections/other"]


def test_creations_that_hang_hold_up_no_other_call(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait for a missing standby: collections are described and listed, and the limit is kept to."""
    engine.create("docs")
    asked, answered = threading.Event(), threading.Event()
    create = engine.store.create_collection

    def create_at_length(spec: CollectionSpec) -> Collection:
        asked.set()
        assert answered.wait(WAIT_S)
        return create(spec)

    async def ask() -> list[CollectionDescription | BaseException]:
        requests = [CollectionInput(f"new-{number}", dimensions=DIMENSIONS) for number in range(8)]
        creating = [asyncio.ensure_future(engine.collections.create(request)) for request in requests]
        try:
            assert await asyncio.to_thread(asked.wait, WAIT_S)
            async with asyncio.timeout(WAIT_S):
                assert (await engine.collections.get(NAME)).name == NAME
                listed = (await engine.collections.list(ListCollectionsRequest())).collections
            assert [each.name for each in listed] == [NAME]
        finally:
            answered.set()
        return await asyncio.gather(*creating, return_exceptions=True)

    monkeypatch.setattr(engine.store, "create_collection", create_at_length)
    assert [type(each) for each in engine.run(ask())] == 2 * [CollectionDescription] + 6 * [TooManyCollectionsError]


def test_collections_are_counted_in_the_store(engine: Engine) -> None:
    """The limit holds for all replicas together."""
    for number in range(3):
        engine.store.create_collection(CollectionSpec(f"theirs-{number}", DIMENSIONS))
    with pytest.raises(TooManyCollectionsError):
        engine.run(engine.collections.create(CollectionInput("ours", dimensions=DIMENSIONS)))
    engine.store.delete_collection(engine.store.get_collection("theirs-0").id)
    engine.run(engine.collections.create(CollectionInput("ours", dimensions=DIMENSIONS)))
