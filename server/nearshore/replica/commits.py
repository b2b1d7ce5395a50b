"""What proves a write token without asking the store: the tags of the newest commits that the feed named."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from nearshore.store.base import Cursor

_TAG_BYTES = 16
_REMEMBERED_COMMITS = 65_536  # a mebibyte: at a hundred commits a second, those of ten minutes


class SeenCommits:
    """Positions without a gap between them, each with its tag. Thread-safe."""

    def __init__(self, remembered: int = _REMEMBERED_COMMITS) -> None:
        """remembered: how many commits are kept, the newest."""
        self._remembered = remembered
        self._lock = threading.Lock()
        self._first = 1  # the position of the first tag
        self._tags = bytearray()

    def add(self, commits: Iterable[Cursor], behind: int | None = None) -> None:
        """Remember these, which come by position; a gap before one of them makes those before it forgotten.

        behind: the position up to which the history is proved; what was told of later ones before is replaced.
        """
        with self._lock:
            if behind is not None:
                del self._tags[max(0, behind + 1 - self._first) * _TAG_BYTES :]
            for commit in commits:
                self._put(commit)
            excess = len(self._tags) // _TAG_BYTES - self._remembered
            if excess > 0:
                del self._tags[: excess * _TAG_BYTES]
                self._first += excess

    def _put(self, commit: Cursor) -> None:
        start = (commit.position - self._first) * _TAG_BYTES
        if start > len(self._tags) or not self._tags:
            self._first, start = commit.position, 0
            self._tags.clear()
        if start >= 0 and commit.tag:  # position 0 has none
            self._tags[start : start + _TAG_BYTES] = commit.tag

    def tag(self, position: int) -> bytes | None:
        """The tag at `position`; None for one that is not remembered."""
        with self._lock:
            start = (position - self._first) * _TAG_BYTES
            return bytes(self._tags[start : start + _TAG_BYTES]) if 0 <= start < len(self._tags) else None

    def clear(self) -> None:
        """Forget all: they belong to a history that the store no longer has."""
        with self._lock:
            self._tags.clear()
