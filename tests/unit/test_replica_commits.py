"""The tags that a replica remembers: none that is wrong, the newest when there are many."""

from __future__ import annotations

from nearshore.records import new_tag
from nearshore.replica.commits import SeenCommits
from nearshore.store.base import Cursor


def commits(*positions: int) -> list[Cursor]:
    return [Cursor(position, new_tag()) for position in positions]


def test_each_commit_keeps_its_tag() -> None:
    """Pages follow each other, may repeat what was told, and what was never told is not known."""
    seen = SeenCommits()
    told = commits(*range(5, 12))
    seen.add([Cursor()])
    seen.add(told[:4])
    seen.add(told[2:])
    assert [seen.tag(each.position) for each in told] == [each.tag for each in told]
    assert [seen.tag(position) for position in (-1, 0, 4, 12)] == [None] * 4


def test_a_gap_forgets_what_lies_before_it() -> None:
    """Positions are kept without gaps, so that a tag is found by counting."""
    seen = SeenCommits()
    before, after = commits(1, 2, 3), commits(7, 8)
    seen.add(before)
    seen.add(after)
    assert [seen.tag(each.position) for each in before] == [None] * 3
    assert [seen.tag(each.position) for each in after] == [each.tag for each in after]
    seen.add(before)  # of a state that was published late
    assert [seen.tag(each.position) for each in after] == [each.tag for each in after]


def test_what_was_told_of_a_lost_history_is_replaced() -> None:
    """A page proves the history up to where it begins: what was remembered behind that, it confirms or ends."""
    seen = SeenCommits()
    lost, found = commits(*range(1, 9)), commits(4, 5, 6)
    seen.add(lost)
    seen.add(found, behind=2)
    assert [seen.tag(position) for position in range(1, 9)] == [None] * 3 + [each.tag for each in found] + [None] * 2
    seen.add([], behind=4)
    assert [seen.tag(position) for position in (4, 5)] == [found[0].tag, None]
    seen.add([], behind=0)
    assert seen.tag(4) is None


def test_the_newest_are_kept() -> None:
    """Memory is bounded."""
    seen = SeenCommits(remembered=3)
    told = commits(*range(1, 9))
    for each in told:
        seen.add([each])
    assert [seen.tag(each.position) for each in told] == [None] * 5 + [each.tag for each in told[5:]]


def test_another_history_begins_anew() -> None:
    """After clear() nothing of the history before proves anything."""
    seen = SeenCommits()
    before, after = commits(*range(1, 9)), commits(2, 3)
    seen.add(before)
    seen.clear()
    assert seen.tag(3) is None
    seen.add(after)
    assert [seen.tag(position) for position in (1, 2, 3, 4)] == [None, after[0].tag, after[1].tag, None]
