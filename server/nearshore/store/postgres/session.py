"""PostgreSQL's side of the writing thread: one transaction a collection, and the word to other processes after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg
import structlog

from nearshore.errors import NearshoreError
from nearshore.store.base import WriteResult
from nearshore.store.errors import StoreLockedError, mistaken
from nearshore.store.postgres import commits, housekeeping
from nearshore.store.postgres.failures import reason_of
from nearshore.store.postgres.listener import CHANNEL
from nearshore.store.postgres.patience import Connection
from nearshore.store.postgres.transactions import Transaction, Transactions
from nearshore.store.rows import Write
from nearshore.store.writer import REPORT

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

# How long a collection is waited for that was locked the last time: others must not wait long behind it.
_SHORT_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '250ms'"


class PostgresSession:
    """Implements writer.Session."""

    def __init__(self, transactions: Transactions, durability: str) -> None:
        """Takes over transactions. durability: what durability.describe said of their connection."""
        self.durability = durability
        self._transactions = transactions
        self._locked: set[int] = set()  # collections that could not be locked the last time
        self._unheard: set[int] = set()  # collections with news that no other process was told of

    @property
    def process_id(self) -> int:
        """The server's process behind the writing connection: whom to ignore when listening."""
        return self._transactions.process_id

    def apply(self, writes: Sequence[Write]) -> Sequence[WriteResult | NearshoreError]:
        """See Session: a collection that fails leaves the others alone, and nothing can deadlock."""
        groups: dict[int, list[int]] = {}
        for number, write in enumerate(writes):
            groups.setdefault(write.collection_id, []).append(number)
        results: dict[int, WriteResult | NearshoreError] = {}
        for collection_id, numbers in groups.items():
            answers: Sequence[WriteResult | NearshoreError]
            try:
                answers = self._apply(collection_id, [writes[number] for number in numbers])
            except Exception:  # the other collections have been committed, or can be
                _log.exception("store met a mistake in writing to a collection", remedy=REPORT)
                answers = [mistaken() for _ in numbers]
            results.update(zip(numbers, answers, strict=True))
        return [results[number] for number in range(len(writes))]

    def tell_others(self, collection_id: int) -> None:
        """Let other processes hear of a collection once this transaction is done; for a job of the writing thread."""
        self._unheard.add(collection_id)

    def run(self, job: Callable[[Connection], _T], doing: str) -> _T:
        """See Session."""

        def transact(transaction: Transaction) -> _T:
            transaction.begin()
            result = job(transaction.connection)
            with transaction.commit():
                pass
            return result

        return self._transactions.run(transact, doing)

    def rest(self) -> None:
        """Tell other processes of the commits: in a transaction of its own, for NOTIFY holds up all that do it."""
        connection, told = self._transactions.connection, sorted(self._unheard)
        self._unheard.clear()
        if connection is None or not told:
            return
        try:
            with connection.pipeline():
                connection.execute("BEGIN")
                connection.execute("SET LOCAL synchronous_commit = off")
                connection.execute("SELECT pg_notify(%s, id::text) FROM unnest(%s::bigint[]) AS id", (CHANNEL, told))
                connection.execute("COMMIT")
        except psycopg.Error as error:  # the others poll anyway
            _log.debug("store could not tell of commits", error=reason_of(error))
        self._transactions.give_up()

    def tidy(self, max_rows: int) -> bool:
        """See Session."""
        return self.run(lambda connection: housekeeping.purge(connection, max_rows), "removing old rows")

    def interrupt(self) -> None:
        """See Session."""
        self._transactions.interrupt()

    def close(self) -> None:
        """See Session."""
        self._transactions.close()

    def _apply(self, collection_id: int, writes: Sequence[Write]) -> Sequence[WriteResult | NearshoreError]:
        def transact(transaction: Transaction) -> Sequence[WriteResult | NearshoreError]:
            hurry = (_SHORT_LOCK_TIMEOUT,) if collection_id in self._locked else ()
            return commits.apply_writes(transaction, collection_id, writes, first=hurry)

        try:
            results = self._transactions.run(transact, "writing documents")
        except NearshoreError as error:
            if isinstance(error, StoreLockedError):
                self._locked.add(collection_id)
            return [error] * len(writes)
        self._locked.discard(collection_id)
        if any(isinstance(result, WriteResult) for result in results):
            self._unheard.add(collection_id)
        return results
