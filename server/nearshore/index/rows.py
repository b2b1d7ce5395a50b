"""The float32 vectors of a segment, in one memory-mapped file that grows."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import numpy as np

from nearshore.errors import StorageFullError
from nearshore.index.errors import CorruptIndexError
from nearshore.records import F32

_GROWTH_BYTES = 256 << 10


class Rows:
    """Vectors by row number, append-only, written by one thread.

    To grow is to map the longer file anew; arrays handed out before keep the older mapping of the same pages.
    """

    def __init__(self, path: Path, dimensions: int, row_count: int = 0) -> None:
        """Create the file, or open one of at least row_count rows. Raises CorruptIndexError when it is shorter."""
        self.path = path
        self._dimensions = dimensions
        self._count = row_count
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._capacity = os.fstat(self._file).st_size // (4 * dimensions)
        if self._capacity < row_count:
            self.close()
            raise CorruptIndexError(
                f"{path} holds {self._capacity} rows, not {row_count}.", "Delete this snapshot; another is used."
            )
        self._mapped = self._map()

    def __len__(self) -> int:
        """How many so far."""
        return self._count

    def append(self, vectors: F32) -> int:
        """Append vectors (m, dimensions); returns the first one's row. Raises StorageFullError, appending nothing."""
        self.reserve(len(vectors))
        first, count = self._count, self._count + len(vectors)
        self._mapped[first:count] = vectors
        self._count = count
        return first

    def reserve(self, row_count: int) -> None:
        """Make room for so many further rows, so that appending them cannot fail. Raises StorageFullError."""
        if self._count + row_count > self._capacity:
            self._grow(self._count + row_count)

    def array(self) -> F32:
        """All rows so far (n, dimensions), read-only and unchanging."""
        rows = self._mapped[: self._count]
        rows.flags.writeable = False
        return rows

    def close(self) -> None:
        """Give up the file handle; arrays handed out stay valid."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """close(), and delete the file; arrays handed out stay valid."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _grow(self, count: int) -> None:
        row_bytes = 4 * self._dimensions
        capacity = max(count, self._capacity * 5 // 4, self._capacity + _GROWTH_BYTES // row_bytes)
        try:
            # Reserved now, for a full disk would otherwise show itself as SIGBUS at a later write to the mapping.
            os.posix_fallocate(self._file, 0, capacity * row_bytes)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageFullError(f"growing {self.path} to {capacity * row_bytes} bytes") from error
            raise
        self._capacity = capacity
        self._mapped = self._map()

    def _map(self) -> F32:
        if not self._capacity:
            return np.empty((0, self._dimensions), np.float32)
        mapping = mmap.mmap(self._file, self._capacity * self._dimensions * 4)
        return np.frombuffer(mapping, np.float32).reshape(self._capacity, self._dimensions)
