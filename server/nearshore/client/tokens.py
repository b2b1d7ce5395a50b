"""The write tokens a client carries, so that it reads its own writes on whichever replica answers.

Of one collection the newest write's token is enough, and its position says which that is: until a fail-over loses a
tail, and positions are given a second time, or the name gets another collection, whose id may be lower, for it is clock
time. So what counts is what was known when the attempt of a write began: that write is newer, wherever it lies.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any

from nearshore.client.codec import Call
from nearshore.client.messages import Deleted, Upserted
from nearshore.errors import CollectionNotFoundError, HistoryChangedError, NearshoreError, WriteTokenExpiredError
from nearshore.records import WriteToken


class WriteTokens:
    """The newest write of each collection, and beside it an earlier one that may be lost. Thread-safe."""

    def __init__(self, *, enabled: bool) -> None:
        """Without `enabled`, nothing is carried."""
        self._enabled = enabled
        self._carried: dict[str, tuple[WriteToken, ...]] = {}
        self._lock = threading.Lock()

    def attach(self, call: Call[Any]) -> None:
        """Make a read wait for what was written through this client."""
        if call.reads:
            call.request.read_after.extend(token.encode() for token in self.carried(call))

    def carried(self, call: Call[Any]) -> tuple[WriteToken, ...]:
        """The tokens of the call's collection, at most two. Whoever begins an attempt keeps them for what it learns."""
        with self._lock:
            return self._carried.get(call.collection, ())

    def learn(self, call: Call[Any], answer: object, before: Collection[WriteToken]) -> None:
        """Take the token of a write; drop those of a collection's earlier life.

        before: what carried() said when the attempt that was answered began.
        """
        if call.forgets:
            self._drop(call.collection, before)
        if not self._enabled or not isinstance(answer, Upserted | Deleted) or not answer.write_token:
            return
        token = WriteToken.decode(answer.write_token)
        with self._lock:
            self._carried[call.collection] = _with(token, self._carried.get(call.collection, ()), before)

    def learn_failure(self, call: Call[Any], error: NearshoreError, before: Collection[WriteToken]) -> None:
        """Drop tokens of a history that is gone, or every later read would fail as this one did. before: see learn."""
        if isinstance(error, CollectionNotFoundError):
            self._drop(call.collection, before)
        elif call.reads and isinstance(error, HistoryChangedError | WriteTokenExpiredError):
            sent = [WriteToken.decode(token) for token in call.request.read_after]
            self._drop(call.collection, [token for token in sent if _names(error, token)] or sent)

    def _drop(self, collection: str, tokens: Collection[WriteToken]) -> None:
        """Carry these no longer; what other calls have learned since stays."""
        with self._lock:
            left = tuple(token for token in self._carried.pop(collection, ()) if token not in tokens)
            if left:
                self._carried[collection] = left


def _with(new: WriteToken, carried: Sequence[WriteToken], before: Collection[WriteToken]) -> tuple[WriteToken, ...]:
    """What to carry after a write, of whose attempt `before` was known."""
    unsure: list[WriteToken] = []
    for old in carried:
        if old.collection_id != new.collection_id:
            if old not in before:  # either may be the one that the name has now: a read will tell
                unsure.append(old)
        elif old.position > new.position:
            if old not in before:  # both were under way together, and the answers arrived in another order
                return tuple(carried)
            unsure.append(old)  # a fail-over lost it, or `new` repeats an earlier write: a read will tell
    return *unsure[:1], new


def _names(error: NearshoreError, token: WriteToken) -> bool:
    """Whether the server says that it is this token which can never be reached."""
    named = (error.metadata.get("collection_id"), error.metadata.get("position"))
    return named == (str(token.collection_id), str(token.position))
