"""How the parts of a process are closed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from nearshore.closing import Closing


def test_parts_are_closed_last_first() -> None:
    """Each only when the one that was added after it has ended."""
    closed: list[str] = []
    closing = Closing()
    for name in ("first", "second", "third"):
        closing.add(name, lambda name=name: closed.append(name))  # type: ignore[misc]
    asyncio.run(closing.close())
    assert closing.hanging == []
    assert closed == ["third", "second", "first"]


def test_a_part_that_hangs_is_named_and_the_others_are_closed() -> None:
    """Neither the others nor the end of the process wait for it."""
    release, closed = threading.Event(), threading.Event()
    closing = Closing(limit_s=2.0, next_s=0.01)
    closing.add("first", closed.set)
    closing.add("hanging", release.wait)
    asyncio.run(closing.close())
    assert closing.hanging == ["hanging"]
    assert closed.is_set()
    release.set()


def test_a_part_that_waits_for_the_next_one_is_waited_for() -> None:
    """A thread may hang in a part that is closed after it."""
    release = threading.Event()
    closing = Closing(next_s=0.01)
    closing.add("first", release.set)
    closing.add("waiting", release.wait)
    asyncio.run(closing.close())
    assert closing.hanging == []


def test_what_closing_a_part_raises_is_told_when_all_are_closed() -> None:
    """It is a bug, and no reason to leave the other parts open, or not to say which hang."""
    release, closed = threading.Event(), threading.Event()
    closing = Closing(limit_s=2.0, next_s=0.01)
    closing.add("first", closed.set)
    closing.add("broken", [].pop)
    closing.add("hanging", release.wait)
    with pytest.raises(IndexError):
        asyncio.run(closing.close())
    assert closed.is_set()
    assert closing.hanging == ["hanging"]
    release.set()
