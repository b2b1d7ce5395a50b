"""Callers who wait until a write is visible.

A token is proved by a commit that the feed named, or else by the store, so that one of another history fails at once.
It is proved anew in every step: after a fail-over its position may come to mean another write.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
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
    proved: bool = False  # in the present step


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

    def asked(self) -> list[Waiter]:
        """Those who wait now."""
        with self._lock:
            return list(self._waiting)

    def judge(self, asked: Iterable[Waiter], head: int, seen: SeenCommits, store: Store) -> None:
        """Prove the tokens of `asked`; fail those that the history of a page read after they were asked has not.

        head: the position of that page's head. The store is asked about commits that were not seen. May raise
        UnavailableError.
        """
        for waiter in asked:
            waiter.proved = False
            try:
                waiter.proved = _holds(waiter.token, head, seen, store)
            except WriteTokenExpiredError as error:
                _settle(waiter.future, error)
            if not waiter.proved:
                _settle(waiter.future, other_history(waiter.token))

    def reach(self, position: int) -> None:
        """Wake all callers with a proved token that lies at or before `position`."""
        for waiter in self.asked():
            if waiter.proved and waiter.token.position <= position:
                _settle(waiter.future, None)

    def fail(self, error: Exception) -> None:
        """Fail everybody: the collection or the process is going away."""
        for waiter in self.asked():
            _settle(waiter.future, error)

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


def _holds(token: WriteToken, head: int, seen: SeenCommits, store: Store) -> bool:
    if not 0 < token.position <= head:
        return not token.position  # who wrote it had it durable before asking: beyond the head it is lost
    if seen.tag(token.position) == token.tag:
        return True
    return store.commit_tag(token.collection_id, token.position) == token.tag


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
