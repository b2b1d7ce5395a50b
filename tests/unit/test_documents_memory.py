"""Memory that is freed goes back to the system when it is asked for."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

import pytest

from nearshore.documents.memory import give_back

BLOCK_BYTES, BLOCKS = 16_000, 4_000
"""Each is too small to be a mapping of its own."""


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_freed_memory_goes_back_to_the_system() -> None:
    """The C library keeps it otherwise, however much it is, where something that is in use lies behind it."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("not glibc")
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    last = blocks.pop()
    for block in blocks:
        library.free(block)
    kept = resident_bytes()
    give_back()
    assert kept - resident_bytes() > BLOCK_BYTES * BLOCKS // 2
    library.free(last)
