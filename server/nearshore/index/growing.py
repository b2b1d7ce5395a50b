"""Append-only arrays that one thread extends while others read."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)


class Growing(Generic[T]):
    """A one-dimensional array with room to grow.

    Growth copies into a new buffer, and the count moves last: a reader's slice stays valid and unchanged for ever.
    """

    def __init__(self, dtype: type[T]) -> None:
        """dtype: of the elements."""
        self._buffer: npt.NDArray[T] = np.empty(0, dtype)
        self._count = 0

    def __len__(self) -> int:
        """How many so far."""
        return self._count

    def extend(self, values: npt.NDArray[T]) -> None:
        """Append values (m,)."""
        count = self._count + len(values)
        if count > len(self._buffer):
            grown = np.empty(max(count, len(self._buffer) * 3 // 2, 64), self._buffer.dtype)
            grown[: self._count] = self._buffer[: self._count]
            self._buffer = grown
        self._buffer[self._count : count] = values
        self._count = count

    def array(self) -> npt.NDArray[T]:
        """All elements so far (n,), as a slice that later growth does not touch."""
        count = self._count  # before the buffer: a newer buffer holds at least as much
        return self._buffer[:count]
