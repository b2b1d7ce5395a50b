"""Waiting for a sink that is away or full: for how long, and with which words."""

import pytest

from nearshore.errors import DeadlineError, NearshoreError, OverloadedError, UnavailableError
from nearshore_indexer.patience import Patience

AWAY, FULL = UnavailableError("Gone.\nAnd more."), OverloadedError("Full.")


class World:
    """A clock, and what was told at which second."""

    def __init__(self, now: list[float]) -> None:
        """now: the one reading of the clock."""
        self.now = now
        self.told: list[tuple[float, str]] = []
        self.patience = Patience("the server at a:1", self._warn, full_s=300.0, away_s=60.0)

    def _warn(self, message: str) -> None:
        self.told.append((self.now[0] - 1_000.0, message))

    def fail(self, error: NearshoreError, *, at: float) -> bool:
        """Whether a failure at that second is waited out."""
        self.now[0] = 1_000.0 + at
        return self.patience.lasts(error)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """One whose clock is the module's."""
    now = [1_000.0]
    monkeypatch.setattr("nearshore_indexer.patience.time.monotonic", lambda: now[0])
    return World(now)


def test_a_server_that_went_away_is_told_at_once_and_every_half_minute(world: World) -> None:
    """One line however many writes fail, and after a minute the error is final."""
    assert all(world.fail(AWAY, at=second) for second in range(61) for _ in range(24))
    assert not world.fail(AWAY, at=61)
    assert [second for second, _ in world.told] == [0, 30]
    assert world.told[0][1] == "the server at a:1 does not answer: Gone; trying again for up to 60 s"
    assert world.told[1][1].endswith("for up to 30 s")


def test_a_full_server_is_told_only_when_it_stays_full(world: World) -> None:
    """To be refused for a moment is the ordinary course of a long run."""
    assert all(world.fail(FULL, at=second) for second in range(0, 301, 5))
    assert not world.fail(FULL, at=301)
    assert world.told[0] == (30, "the server at a:1 takes no more for now: Full; trying again for up to 270 s")
    assert len(world.told) == 9


def test_a_success_starts_the_waiting_anew(world: World) -> None:
    """What happened before it is forgotten."""
    for start in (0, 100):
        assert all(world.fail(FULL, at=start + second) for second in range(30))
        world.patience.succeeded()
    assert not world.told
    assert world.fail(AWAY, at=200)
    world.patience.succeeded()
    assert world.fail(AWAY, at=280)
    assert [second for second, _ in world.told] == [200, 280]


def test_a_server_that_was_full_for_long_may_still_go_away_for_a_while(world: World) -> None:
    """Each trouble is timed by itself; an answer of any kind shows that the server is there."""
    assert world.fail(FULL, at=0)
    assert world.fail(AWAY, at=200)
    assert world.fail(FULL, at=250)
    assert world.fail(AWAY, at=299)
    assert not world.fail(FULL, at=301)


def test_a_call_that_waited_in_vain_is_repeated_only_if_others_succeeded(world: World) -> None:
    """A server that hangs must not be waited for twice."""
    world.now[0] += 400
    world.patience.succeeded()
    assert world.fail(DeadlineError("Late."), at=600)
    assert not world.fail(DeadlineError("Late."), at=701)


def test_an_absence_is_forgotten_once_the_index_has_come_nearer(world: World) -> None:
    """Two short ones, minutes apart, are no long one."""
    assert world.fail(AWAY, at=0)
    assert world.fail(FULL, at=1)
    for number in range(1, 11):
        assert world.fail(DeadlineError("Late.", position=number), at=30 * number)
    assert world.fail(AWAY, at=310)
    assert world.fail(FULL, at=311)
