"""Room for the vectors of tokens, which take a hundred times what the vectors of their texts take."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

from nearshore.embedding.errors import TokenVectorsTooLargeError
from nearshore.errors import OverloadedError

ANSWERS = 4  # of the largest size, that may be in the making or on their way at once


class TokenRoom:
    """Counts the bytes of token vectors that are kept for callers, or on their way to them. Thread-safe."""

    def __init__(self, max_message_bytes: int) -> None:
        """max_message_bytes: of one answer; the answers that are not sent yet have ANSWERS times as many."""
        self._max_message_bytes = max_message_bytes
        self._taken_bytes = 0
        self._lock = threading.Lock()

    def claim(self) -> TokenClaim:
        """For one call; it takes nothing yet."""
        return TokenClaim(self)

    def take(self, tokens: int, size_bytes: int) -> None:
        """Reserve for one answer until free() is called. tokens: it has the vectors of so many.

        Raises TokenVectorsTooLargeError, and OverloadedError while others need the room.
        """
        if size_bytes > self._max_message_bytes:
            raise TokenVectorsTooLargeError(tokens, size_bytes, self._max_message_bytes)
        most = ANSWERS * self._max_message_bytes
        with self._lock:
            taken = self._taken_bytes
            if taken + size_bytes <= most:
                self._taken_bytes += size_bytes
                return
        raise OverloadedError(
            f"The vectors of tokens make an answer of {size_bytes:,} bytes; others of {taken:,} are being made or "
            f"sent, and together they may have {most:,}.",
            f"Retry with back-off, send fewer texts a call, or raise server.max_message_bytes, of which that is "
            f"{ANSWERS} times.",
        )

    def free(self, size_bytes: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken_bytes -= size_bytes


class TokenClaim:
    """What one call takes of the room, until its answer is sent or given up: only the caller knows when that is."""

    def __init__(self, room: TokenRoom) -> None:
        """Use TokenRoom.claim()."""
        self._room = room
        self._taken_bytes = 0
        self._over = False
        self._lock = threading.Lock()  # texts are cut in a thread, and their caller may leave meanwhile

    def take(self, tokens: int, size_bytes: int) -> None:
        """Reserve as TokenRoom.take() does. Raises CancelledError when the call is over already."""
        self._room.take(tokens, size_bytes)
        with self._lock:
            if not self._over:
                self._taken_bytes += size_bytes
                return
        self._room.free(size_bytes)
        raise CancelledError

    def free(self) -> None:
        """Give back what was taken, if anything was; the call is over."""
        with self._lock:
            self._over = True
            self._room.free(self._taken_bytes)
            self._taken_bytes = 0
