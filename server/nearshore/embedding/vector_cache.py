"""The vectors of texts that were asked for lately, within so many bytes."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from nearshore.records import F32

ENTRY_BYTES = 160  # of the dictionary, which grows by doubling, and what the allocator rounds up: 75 to 160 measured


class VectorCache:
    """The least recently used go first. Thread-safe.

    Keys are token ids (see key_of) behind a mark of their engine (see Intake), vectors those of that engine before a
    request's form: no key leads to the vector of another text, graph or pooling.
    """

    def __init__(self, max_bytes: int) -> None:
        """max_bytes: of all keys and vectors, with what it takes to keep them."""
        self._max_bytes = max_bytes
        self._vectors: OrderedDict[bytes, bytes] = OrderedDict()  # as bytes, which share no array with their run
        self._lock = threading.Lock()
        self.bytes = 0
        """Bytes in use, not less than Python takes for them; never more than max_bytes."""

    def find(self, keys: Iterable[bytes]) -> list[F32 | None]:
        """The vector (dimensions,) of each text, not to be written to; None where it is not kept."""
        with self._lock:
            return [self._find(key) for key in keys]

    def keep(self, keys: Sequence[bytes], vectors: F32) -> None:
        """Keep the vectors (texts, dimensions) of texts, the last one longest."""
        with self._lock:
            for key, vector in zip(keys, vectors, strict=True):
                self._keep(key, vector.tobytes())

    def _find(self, key: bytes) -> F32 | None:
        kept = self._vectors.get(key)
        if kept is None:
            return None
        self._vectors.move_to_end(key)
        return np.frombuffer(kept, np.float32)

    def _keep(self, key: bytes, vector: bytes) -> None:
        if key in self._vectors or _bytes_of(key, vector) > self._max_bytes:
            return
        self._vectors[key] = vector
        self.bytes += _bytes_of(key, vector)
        while self.bytes > self._max_bytes:
            self.bytes -= _bytes_of(*self._vectors.popitem(last=False))


def _bytes_of(key: bytes, vector: bytes) -> int:
    return sys.getsizeof(key) + sys.getsizeof(vector) + ENTRY_BYTES
