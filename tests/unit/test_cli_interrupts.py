"""What ends a command that has something to tidy up."""

import signal
from collections.abc import Iterator

import pytest

from nearshore.cli import interrupts
from nearshore.cli.interrupts import ending_in_order

ENDING = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test sets, and whatever the tests were started with."""
    monkeypatch.setattr(interrupts, "SAME_REQUEST_S", 3_600.0)
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_comes_twice_is_one_request(number: signal.Signals) -> None:
    """`timeout` sends it to its child and to the child's group: the second must not cut the tidying short."""
    with ending_in_order():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        for each in ENDING:
            signal.raise_signal(each)


@pytest.mark.parametrize("number", ENDING)
def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """`nohup` ignores SIGHUP so that a command goes on."""
    signal.signal(number, signal.SIG_IGN)
    with ending_in_order():
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_IGN
