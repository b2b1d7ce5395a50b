"""Gives freed memory back to the system."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any


def give_back() -> None:
    """Return what the C library keeps of freed memory for later: of a large model it is hundreds of megabytes.

    glibc's malloc_trim(3), for all of its arenas; other libraries have none, and nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def let_go(held: list[Any]) -> None:
    """Drop the last references to what is in a list, and give its memory back."""
    if held:
        held.clear()
        give_back()
