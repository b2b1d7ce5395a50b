"""How many calls, and how many bytes of requests, a server works on at once; more are refused, never delayed.

At most half of them may wait for the store: while it hangs they hold their places until their deadlines, and the
searches, which need no store, go on with the other half.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from nearshore.errors import OverloadedError


class TooManyCallsError(OverloadedError):
    """The server works on as many calls as it may."""

    reason = "TOO_MANY_CALLS"

    def __init__(self, max_calls: int) -> None:
        """max_calls: the limit."""
        super().__init__(
            f"{max_calls} calls are being worked on, as many as server.max_concurrent_calls allows.",
            "Retry with back-off; if memory allows, raise the limit, or add replicas.",
        )


class TooManyBytesError(OverloadedError):
    """The server works on requests of as many bytes as it may."""

    reason = "TOO_MANY_BYTES"

    def __init__(self, size_bytes: int, busy_bytes: int, max_bytes: int) -> None:
        """size_bytes: of this request; busy_bytes: of those being worked on; max_bytes: the limit."""
        super().__init__(
            f"The request has {size_bytes} bytes; requests of {busy_bytes} are being worked on, and "
            f"server.max_concurrent_bytes is {max_bytes}.",
            "Retry with back-off, or send less in one call; if memory allows, raise the limit, or add replicas.",
        )


class TooManyStoreCallsError(OverloadedError):
    """As many calls as may, or requests of as many bytes, wait for the store; those that need none go on."""

    reason = "TOO_MANY_STORE_CALLS"

    def __init__(self, busy: int, what: str, setting: str) -> None:
        """busy: how many `what` they have, calls or bytes; setting: what bounds those of all calls."""
        super().__init__(
            f"Calls that wait for the store have {busy} {what}; no more than half of {setting} is theirs.",
            "Retry with back-off. If it lasts, see what the store waits for, such as its disk or a missing standby; if "
            f"nothing, raise {setting} or add replicas.",
        )


class TooManyStreamsError(OverloadedError):
    """As many streams are open as may be."""

    reason = "TOO_MANY_STREAMS"

    def __init__(self, max_streams: int) -> None:
        """max_streams: the limit."""
        super().__init__(
            f"{max_streams} streams are open, as many as may be: half of server.max_concurrent_calls.",
            "Retry with back-off, or use Embed; if memory allows, raise the limit, or add replicas.",
        )


class Admission:
    """Counts what is being worked on. Used on one event loop."""

    def __init__(self, *, max_calls: int, max_bytes: int) -> None:
        """max_bytes: of requests, as they came over the wire."""
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0
        self._streams = 0
        self._store_calls = 0  # of those, how many wait for the store
        self._store_bytes = 0

    @property
    def calls(self) -> int:
        """How many are being worked on. From any thread."""
        return self._calls

    @contextlib.contextmanager
    def admit(self, size_bytes: int) -> Iterator[Callable[[], None]]:
        """Count a call while the block runs; one alone is taken whatever its size.

        Yields what it has to call before it waits for the store, again and again if it likes: from then on it is
        counted among those as well. That raises TooManyStoreCallsError.
        Raises TooManyCallsError, TooManyBytesError.
        """
        if self._calls >= self._max_calls:
            raise TooManyCallsError(self._max_calls)
        if self._calls and self._bytes + size_bytes > self._max_bytes:
            raise TooManyBytesError(size_bytes, self._bytes, self._max_bytes)
        claimed = False

        def claim_store() -> None:
            nonlocal claimed
            if not claimed:
                self._check_store(size_bytes)
                self._store_calls += 1
                self._store_bytes += size_bytes
                claimed = True

        self._calls += 1
        self._bytes += size_bytes
        try:
            yield claim_store
        finally:
            self._calls -= 1
            self._bytes -= size_bytes
            if claimed:
                self._store_calls -= 1
                self._store_bytes -= size_bytes

    @contextlib.contextmanager
    def admit_stream(self) -> Iterator[None]:
        """Count a stream while the block runs; each of its batches is a call besides. Raises TooManyStreamsError."""
        most = max(1, self._max_calls // 2)
        if self._streams >= most:
            raise TooManyStreamsError(most)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def _check_store(self, size_bytes: int) -> None:
        if self._store_calls >= max(1, self._max_calls // 2):
            raise TooManyStoreCallsError(self._store_calls, "calls", "server.max_concurrent_calls")
        if self._store_calls and self._store_bytes + size_bytes > self._max_bytes // 2:
            raise TooManyStoreCallsError(self._store_bytes, "bytes", "server.max_concurrent_bytes")
