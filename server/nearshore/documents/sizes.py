"""Sizes as the limits count them."""

from __future__ import annotations


def size_bytes(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
