"""How long a view has lacked commits, with a clock that the test moves."""

import pytest

from nearshore.replica.lag import Lag


class Clock:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lag(clock: Clock) -> Lag:
    return Lag(clock)


def test_a_view_that_has_everything_has_no_lag(lag: Lag, clock: Clock) -> None:
    """However long ago the last commit was."""
    lag.heard(5)
    lag.applied(5)
    clock.now += 60
    lag.heard(5)
    assert lag.seconds == 0


def test_lag_counts_from_the_oldest_commit_that_is_missing(lag: Lag, clock: Clock) -> None:
    """Under steady writes the lag is that of one commit, not the time since the view last had everything."""
    for position in range(1, 100):
        lag.heard(position)
        clock.now += 1
        lag.heard(position + 1)
        assert lag.seconds == 1
        lag.applied(position)
        assert lag.seconds == 0  # the next one was heard of just now
    clock.now += 3
    assert lag.seconds == 3


def test_hearing_of_the_same_head_again_changes_nothing(lag: Lag, clock: Clock) -> None:
    """Polls that find the follower still at work do not make its lag look young."""
    for _ in range(10):
        lag.heard(7)
        clock.now += 1
    assert lag.seconds == 10


def test_a_shorter_history_is_no_lag_for_ever(lag: Lag, clock: Clock) -> None:
    """After a restore the old history's positions are never reached; the lag ends when the new one's are."""
    lag.heard(50)
    lag.applied(50)
    lag.heard(60)
    lag.lost()
    clock.now += 1
    lag.heard(40)
    clock.now += 2
    assert lag.seconds == 2
    lag.applied(40)
    assert lag.seconds == 0


def test_what_is_remembered_is_bounded_and_never_too_little(lag: Lag, clock: Clock) -> None:
    """While following stands still for hours, the lag stays that of the oldest commit, and is 0 once all is applied."""
    for position in range(1, 5_001):
        lag.heard(position)
        clock.now += 1
    assert lag.seconds == 5_000
    lag.applied(4_999)
    assert lag.seconds >= 1
    lag.applied(5_000)
    assert lag.seconds == 0
