"""Which write tokens a client carries, and when it lets go of them."""

from __future__ import annotations

from typing import Any

import pytest

from nearshore.client import Deleted, Metric, Upserted, codec
from nearshore.client.codec import Call
from nearshore.client.failures import ServerUnreachableError
from nearshore.client.tokens import WriteTokens
from nearshore.errors import (
    CollectionNotFoundError,
    DeadlineError,
    HistoryChangedError,
    NearshoreError,
    WriteTokenExpiredError,
)
from nearshore.records import IndexKind, WriteToken

TAG = bytes(16)
UPSERT = codec.upsert("docs", [], None, "cut_end", "")
DELETE = codec.delete("docs", ["a"], "", "")


def token(position: int, collection_id: int = 1) -> str:
    return WriteToken(collection_id, position, TAG).encode()


def reads(collection: str = "docs") -> list[Call[Any]]:
    """One call of every kind that takes read_after."""
    return [
        codec.get_documents(collection, ["a"], codec.ALL_BUT_VECTORS),
        codec.list_documents(collection, "", 0, "", codec.ALL_BUT_VECTORS),
        codec.count(collection, ""),
        codec.search(collection, "query"),
        codec.batch_search(collection, ["query"]),
    ]


def carried(tokens: WriteTokens, collection: str = "docs") -> list[str]:
    """The read_after of the next read; the same for all kinds."""
    calls = reads(collection)
    for call in calls:
        tokens.attach(call)
    sent = [list(call.request.read_after) for call in calls]
    assert all(each == sent[0] for each in sent)
    return sent[0]


def written(position: int = 3, collection_id: int = 1) -> WriteTokens:
    """Those of a client that has written once."""
    tokens = WriteTokens(enabled=True)
    tokens.learn(UPSERT, Upserted(token(position, collection_id), (), 1))
    return tokens


def test_every_read_of_the_collection_carries_its_newest_write() -> None:
    """Of several writes the newest is enough, in whatever order their answers arrive, and one token is sent."""
    tokens = written(3)
    assert carried(tokens) == [token(3)]
    tokens.learn(DELETE, Deleted(token(5), 1))
    tokens.learn(UPSERT, Upserted(token(4), (), 1))
    assert carried(tokens) == [token(5)]
    assert carried(tokens, "others") == []


def test_a_namesake_of_a_deleted_collection_wins_over_it() -> None:
    """Positions of another collection start over, so its id, which only grows, is compared first."""
    tokens = written(90, collection_id=1)
    tokens.learn(UPSERT, Upserted(token(1, collection_id=2), (), 1))
    assert carried(tokens) == [token(1, collection_id=2)]
    tokens.learn(UPSERT, Upserted(token(91, collection_id=1), (), 1))
    assert carried(tokens) == [token(1, collection_id=2)]


def test_a_write_that_wrote_nothing_leaves_no_token() -> None:
    """A delete by a filter that matched nothing answers without one; the earlier write is still waited for."""
    tokens = written(3)
    tokens.learn(DELETE, Deleted("", 0))
    assert carried(tokens) == [token(3)]


def test_other_calls_carry_nothing() -> None:
    """A write does not wait for a write."""
    written().attach(UPSERT)
    assert not hasattr(UPSERT.request, "read_after")


def test_nothing_is_carried_when_not_wanted() -> None:
    """A client that does not read its own writes sends no token."""
    tokens = WriteTokens(enabled=False)
    tokens.learn(UPSERT, Upserted(token(3), (), 1))
    assert carried(tokens) == []


@pytest.mark.parametrize(
    "call",
    [
        codec.delete_collection("docs"),
        codec.create_collection("docs", "", 3, Metric.COSINE, IndexKind.AUTO),
    ],
    ids=["deleted", "created"],
)
def test_a_collection_that_begins_or_ends_has_no_tokens(call: Call[Any]) -> None:
    """A token of its earlier life would fail every read of the new one."""
    tokens = written()
    tokens.learn(call, None)
    assert carried(tokens) == []


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (WriteTokenExpiredError(), False),
        (HistoryChangedError("x"), False),
        (CollectionNotFoundError("docs"), False),
        (DeadlineError("x"), True),
        (ServerUnreachableError("target", "x"), True),
    ],
)
def test_a_failed_read_drops_tokens_that_can_never_be_reached(error: NearshoreError, *, kept: bool) -> None:
    """Or every later read would fail like it; a failure that may pass drops nothing."""
    tokens = written(3)
    tokens.learn_failure(codec.count("docs", ""), error)
    assert carried(tokens) == ([token(3)] if kept else [])
    assert carried(written(3)) == [token(3)]
