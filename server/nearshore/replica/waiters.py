"""Callers who wait until a write is visible.

A token is first proved, by a commit that the feed named or else by the store, so that one of another history fails at
once; then it waits for its position.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from nearshore.errors import HistoryChangedError, WriteTokenExpiredError
from nearshore.records import WriteToken
from nearshore.replica.commits import SeenCommits
from nearshore.store.base import Store


@dataclass(eq=False, slots=True)
class Waiter:
    """One caller and the token it holds."""

    token: WriteToken
    future: Future[None] = field(default_factory=Future)
    verified: bool = False


class Waiters:
    """The waiting callers of one collection. Thread-safe; leaves no trace of who cancelled."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: set[Waiter] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, token: WriteToken) -> Future[None]:
        """Wait for `token`; the future resolves, fails with HistoryChangedError, or is cancelled by its holder."""
        waiter = Waiter(token)
        with self._lock:
            self._waiting.add(waiter)
        waiter.future.add_done_callback(lambda _: self._forget(waiter))
        return waiter.future

    def add_first(self, collection_id: int) -> Future[None]:
        """Wait for the first view, whatever it shows: as for a token of position 0, which every history has."""
        return self.add(WriteToken(collection_id, 0, b""))

    def verify(self, store: Store, seen: SeenCommits) -> None:
        """Prove the tokens that are not proved yet, asking the store about commits that were not seen.

        Fails those of another history. May raise UnavailableError.
        """
        for waiter in self._snapshot():
            token = waiter.token
            if waiter.verified or not token.position or seen.tag(token.position) == token.tag:
                waiter.verified = True
                continue
            try:
                tag = store.commit_tag(token.collection_id, token.position)
            except WriteTokenExpiredError as error:
                _settle(waiter.future, error)
                continue
            if tag == token.tag:
                waiter.verified = True
            else:
                _settle(waiter.future, other_history(token))

    def reach(self, position: int) -> None:
        """Wake all verified callers whose token lies at or before `position`."""
        for waiter in self._snapshot():
            if waiter.verified and waiter.token.position <= position:
                _settle(waiter.future, None)

    def doubt(self) -> None:
        """The store's history changed: ask again about every token."""
        for waiter in self._snapshot():
            waiter.verified = False

    def fail(self, error: Exception) -> None:
        """Fail everybody: the collection or the process is going away."""
        for waiter in self._snapshot():
            _settle(waiter.future, error)

    def _snapshot(self) -> list[Waiter]:
        with self._lock:
            return list(self._waiting)

    def _forget(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiting.discard(waiter)


def other_history(token: WriteToken) -> HistoryChangedError:
    """The error of a token that this store's history does not contain."""
    return HistoryChangedError(
        f"The write token names commit {token.position} of collection id {token.collection_id}, "
        "which the history of this collection does not have: the token is another collection's or a deleted "
        "namesake's, or the store was restored or failed over.",
        "Send tokens of this collection only. If it is one, check that the write is there, write again if not, and use "
        "the new write_token (or send none).",
        collection_id=token.collection_id,
        position=token.position,
    )


def _settle(future: Future[None], error: Exception | None) -> None:
    """Resolve unless its holder cancelled in the meantime."""
    if future.done():
        return
    try:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
    except InvalidStateError:
        return
