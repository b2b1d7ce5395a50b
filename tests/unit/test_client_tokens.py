"""Which write tokens a client carries, and when it lets go of them."""

from __future__ import annotations

from typing import Any

import pytest
from grpc import StatusCode

from nearshore.client import Metric, Retries, codec
from nearshore.client.codec import Call
from nearshore.client.retries import Attempts, Caller
from nearshore.client.tokens import WriteTokens
from nearshore.errors import NearshoreError
from nearshore.records import IndexKind, WriteToken
from nearshore.settings import load_settings
from nearshore.v1 import collection_service_pb2 as collections_pb
from nearshore.v1 import document_service_pb2 as documents_pb
from tests.scripted_server import ANSWERS, Refusal, trailing

UPSERT = codec.upsert("docs", [], None, "cut_end", "")
DELETE = codec.delete("docs", ["a"], "", "")
DROP = codec.delete_collection("docs")
CREATE = codec.create_collection("docs", "", 3, Metric.COSINE, IndexKind.AUTO)
OLD, NEW = b"before the change".ljust(16)[:16], b"after the change".ljust(16)[:16]  # tags
NOT_FOUND = Refusal(StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")
CHANGED = Refusal(StatusCode.ABORTED, "HISTORY_CHANGED")
EXPIRED = Refusal(StatusCode.FAILED_PRECONDITION, "WRITE_TOKEN_EXPIRED")
RESTARTING = Refusal(StatusCode.UNAVAILABLE)


def token(position: int, collection_id: int = 1, tag: bytes = OLD) -> str:
    return WriteToken(collection_id, position, tag).encode()


def lost(refusal: Refusal, position: int, collection_id: int = 1) -> Refusal:
    """A refusal that names its token, as servers do."""
    return refusal._replace(facts={"collection_id": str(collection_id), "position": str(position)})


def reads(collection: str = "docs") -> list[Call[Any]]:
    """One call of every kind that takes read_after."""
    return [
        codec.get_documents(collection, ["a"], codec.ALL_BUT_VECTORS),
        codec.list_documents(collection, "", 0, "", codec.ALL_BUT_VECTORS),
        codec.count(collection, ""),
        codec.search(collection, "query"),
        codec.batch_search(collection, ["query"]),
    ]


class Program:
    """What calls with one client; the test answers each of them when it likes."""

    def __init__(self, *, reads_its_writes: bool = True) -> None:
        self._caller = Caller("target", 60.0, Retries(), WriteTokens(enabled=reads_its_writes))

    def begins(self, call: Call[Any]) -> Attempts[Any]:
        """Send a call."""
        attempts = self._caller.begin(call)
        attempts.begin()
        return attempts

    def wrote(self, position: int, collection_id: int = 1, tag: bytes = OLD) -> None:
        """Write, and get the answer at once."""
        answers_write(self.begins(UPSERT), position, collection_id, tag)

    def read_fails(self, refusal: Refusal) -> None:
        """Read, and be refused at once."""
        fails(self.begins(codec.count("docs", "")), refusal)

    def carries(self, collection: str = "docs") -> list[str]:
        """The read_after of the next read; the same for all kinds."""
        calls = reads(collection)
        for call in calls:
            self._caller.begin(call)
        sent = [list(call.request.read_after) for call in calls]
        assert all(each == sent[0] for each in sent)
        return sent[0]


def answers_write(attempts: Attempts[Any], position: int, collection_id: int = 1, tag: bytes = OLD) -> None:
    """Acknowledge an upsert."""
    attempts.succeeded(documents_pb.UpsertDocumentsResponse(write_token=token(position, collection_id, tag)))


def fails(attempts: Attempts[Any], refusal: Refusal) -> None:
    """Refuse a call for good."""
    with pytest.raises(NearshoreError):
        attempts.pause_s(refusal.code, "refused", trailing(refusal))


def test_every_read_of_the_collection_carries_its_newest_write() -> None:
    """Of several writes the newest is enough, in whatever order their answers arrive, and one token is sent."""
    program = Program()
    program.wrote(3)
    assert program.carries() == [token(3)]
    first, second = program.begins(UPSERT), program.begins(DELETE)
    second.succeeded(documents_pb.DeleteDocumentsResponse(write_token=token(5), deleted_count=1))
    answers_write(first, 4)
    assert program.carries() == [token(5)]
    assert program.carries("others") == []


def test_a_write_after_a_fail_over_is_read_whatever_its_position() -> None:
    """The read that tells of the lost write drops that one alone, so that the check behind it sees the new one."""
    program = Program()
    program.wrote(100)
    program.wrote(91, tag=NEW)
    assert program.carries() == [token(100), token(91, tag=NEW)]
    program.wrote(92, tag=NEW)
    program.read_fails(lost(CHANGED, 100))
    assert program.carries() == [token(92, tag=NEW)]


def test_a_write_that_was_tried_again_through_a_fail_over_is_read() -> None:
    """Another write was acknowledged before the attempt that succeeded, so this one is newer."""
    program = Program()
    attempts = program.begins(UPSERT)
    program.wrote(100)
    attempts.pause_s(RESTARTING.code, "gone", None)
    attempts.begin()
    answers_write(attempts, 91, tag=NEW)
    program.read_fails(lost(CHANGED, 100))
    assert program.carries() == [token(91, tag=NEW)]


def test_a_write_at_the_position_of_a_lost_one_takes_its_place() -> None:
    """Both cannot be there, and the later answer is the one that counts."""
    program = Program()
    program.wrote(100)
    program.wrote(100, tag=NEW)
    assert program.carries() == [token(100, tag=NEW)]


def test_an_earlier_write_repeated_hides_no_later_one() -> None:
    """A request_id that was used before answers with the position that its write had then."""
    program = Program()
    program.wrote(10)
    program.wrote(3)
    assert program.carries() == [token(10), token(3)]
    program.wrote(11)
    assert program.carries() == [token(11)]


def test_never_more_than_two_tokens_are_carried() -> None:
    """Every server takes as many, whatever its limits.max_read_after."""
    program = Program()
    for position in (100, 91, 80, 70):
        program.wrote(position)
    assert program.carries() == [token(100), token(70)]
    with pytest.raises(NearshoreError, match="max_read_after"):
        load_settings(limits__max_read_after=1)


@pytest.mark.parametrize("other_id", [1, 3], ids=["lower", "higher"])
def test_a_namesake_of_a_deleted_collection_wins_over_it(other_id: int) -> None:
    """Its positions start over, and its id may be lower: clocks are set back."""
    program = Program()
    program.wrote(90, collection_id=2)
    late = program.begins(UPSERT)
    program.wrote(1, collection_id=other_id)
    assert program.carries() == [token(1, collection_id=other_id)]
    answers_write(late, 91, collection_id=2)
    program.read_fails(lost(CHANGED, 91, collection_id=2))
    assert program.carries() == [token(1, collection_id=other_id)]


def test_a_write_that_wrote_nothing_leaves_no_token() -> None:
    """A delete by a filter that matched nothing answers without one; the earlier write is still waited for."""
    program = Program()
    program.wrote(3)
    program.begins(DELETE).succeeded(documents_pb.DeleteDocumentsResponse())
    assert program.carries() == [token(3)]


def test_other_calls_carry_nothing() -> None:
    """A write does not wait for a write."""
    program = Program()
    program.wrote(3)
    program.begins(UPSERT)
    assert not hasattr(UPSERT.request, "read_after")


def test_nothing_is_carried_when_not_wanted() -> None:
    """A client that does not read its own writes sends no token."""
    program = Program(reads_its_writes=False)
    program.wrote(3)
    assert program.carries() == []


@pytest.mark.parametrize(
    ("call", "answer"),
    [(DROP, collections_pb.DeleteCollectionResponse()), (CREATE, ANSWERS["CreateCollection"])],
    ids=["deleted", "created"],
)
def test_a_collection_that_begins_or_ends_has_no_tokens(call: Call[Any], answer: Any) -> None:
    """Those of its earlier life would fail every read of the new one; those of the new one stay."""
    program = Program()
    program.wrote(3)
    program.begins(call).succeeded(answer)
    assert program.carries() == []
    program.wrote(3)
    attempts = program.begins(call)
    program.wrote(1, collection_id=2)
    attempts.succeeded(answer)
    assert program.carries() == [token(1, collection_id=2)]


@pytest.mark.parametrize(
    ("refusal", "kept"),
    [
        (EXPIRED, False),
        (CHANGED, False),
        (lost(CHANGED, 3), False),
        (NOT_FOUND, False),
        (Refusal(StatusCode.DEADLINE_EXCEEDED, "READ_AFTER_TIMEOUT"), True),
        (Refusal(StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"), True),
    ],
    ids=lambda value: value.reason if isinstance(value, Refusal) else "",
)
def test_a_failed_read_drops_tokens_that_can_never_be_reached(refusal: Refusal, *, kept: bool) -> None:
    """Or every later read would fail like it; a failure that may pass drops nothing."""
    program = Program()
    program.wrote(3)
    program.read_fails(refusal)
    assert program.carries() == ([token(3)] if kept else [])


@pytest.mark.parametrize("refusal", [EXPIRED, CHANGED, NOT_FOUND], ids=lambda refusal: refusal.reason)
@pytest.mark.parametrize("call", [codec.count("docs", ""), UPSERT, DROP], ids=["read", "write", "drop"])
def test_a_late_failure_drops_nothing_that_was_written_since(call: Call[Any], refusal: Refusal) -> None:
    """What another thread wrote meanwhile was no part of the call that failed."""
    program = Program()
    program.wrote(3)
    attempts = program.begins(call)
    program.wrote(1, collection_id=2)
    fails(attempts, refusal)
    assert program.carries() == [token(1, collection_id=2)]


@pytest.mark.parametrize("refusal", [CHANGED, EXPIRED], ids=lambda refusal: refusal.reason)
def test_a_read_whose_earlier_token_is_worthless_drops_that_one_alone(refusal: Refusal) -> None:
    """The server names the one that it cannot reach."""
    program = Program()
    program.wrote(10)
    program.wrote(3)
    program.read_fails(lost(refusal, 3))
    assert program.carries() == [token(10)]
