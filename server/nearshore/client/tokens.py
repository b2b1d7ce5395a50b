"""The write tokens a client carries, so that it reads its own writes on whichever replica answers."""

from __future__ import annotations

import threading
from typing import Any

from nearshore.client.codec import Call
from nearshore.client.messages import Deleted, Upserted
from nearshore.errors import CollectionNotFoundError, HistoryChangedError, NearshoreError
from nearshore.records import WriteToken


class WriteTokens:
    """The newest write of each collection. Thread-safe."""

    def __init__(self, *, enabled: bool) -> None:
        """Without `enabled`, nothing is carried."""
        self._enabled = enabled
        self._newest: dict[str, WriteToken] = {}
        self._lock = threading.Lock()

    def attach(self, call: Call[Any]) -> None:
        """Make a read wait for what was written through this client."""
        if not call.reads:
            return
        with self._lock:
            token = self._newest.get(call.collection)
        if token is not None:
            call.request.read_after.append(token.encode())

    def learn(self, call: Call[Any], answer: object) -> None:
        """Take the token of a write; drop those of a collection's earlier life."""
        if call.forgets:
            self._forget(call.collection)
        if not self._enabled or not isinstance(answer, Upserted | Deleted) or not answer.write_token:
            return
        token = WriteToken.decode(answer.write_token)
        with self._lock:
            known = self._newest.get(call.collection)
            if known is None or (known.collection_id, known.position) < (token.collection_id, token.position):
                self._newest[call.collection] = token

    def learn_failure(self, call: Call[Any], error: NearshoreError) -> None:
        """Drop tokens of a history that is gone, or every later read would fail as this one did."""
        if isinstance(error, HistoryChangedError | CollectionNotFoundError) or error.reason == "WRITE_TOKEN_EXPIRED":
            self._forget(call.collection)

    def _forget(self, collection: str) -> None:
        with self._lock:
            self._newest.pop(collection, None)
