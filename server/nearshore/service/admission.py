"""How many calls, and how many bytes of requests, a server works on at once; more are refused, never delayed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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


class Admission:
    """Counts what is being worked on. Used on one event loop."""

    def __init__(self, *, max_calls: int, max_bytes: int) -> None:
        """max_bytes: of requests, as they came over the wire."""
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0

    @property
    def calls(self) -> int:
        """How many are being worked on. From any thread."""
        return self._calls

    @contextlib.contextmanager
    def admit(self, size_bytes: int) -> Iterator[None]:
        """Count a call while the block runs; one alone is taken whatever its size.

        Raises TooManyCallsError, TooManyBytesError.
        """
        if self._calls >= self._max_calls:
            raise TooManyCallsError(self._max_calls)
        if self._calls and self._bytes + size_bytes > self._max_bytes:
            raise TooManyBytesError(size_bytes, self._bytes, self._max_bytes)
        self._calls += 1
        self._bytes += size_bytes
        try:
            yield
        finally:
            self._calls -= 1
            self._bytes -= size_bytes
