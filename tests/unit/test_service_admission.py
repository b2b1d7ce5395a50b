"""What a server takes on at once."""

from __future__ import annotations

import pytest

from nearshore.service.admission import Admission, TooManyBytesError, TooManyCallsError, TooManyStoreCallsError


def test_requests_fill_a_budget_of_bytes_and_free_it_when_they_end() -> None:
    """What is more than what is left is refused, what fits is taken, and what ended or failed counts no more."""
    admission = Admission(max_calls=10, max_bytes=100)
    with admission.admit(60):
        with pytest.raises(TooManyBytesError, match="41 bytes; requests of 60"), admission.admit(41):
            pass
        with admission.admit(40):
            pass
        with pytest.raises(ZeroDivisionError), admission.admit(40):
            raise ZeroDivisionError
        with admission.admit(40):
            pass
    with admission.admit(100):
        pass


def test_a_request_alone_is_taken_whatever_its_size() -> None:
    """Otherwise it would be asked to come back for ever."""
    admission = Admission(max_calls=1, max_bytes=100)
    with admission.admit(101), pytest.raises(TooManyCallsError), admission.admit(1):
        pass


def test_half_of_all_calls_may_wait_for_the_store() -> None:
    """One more is refused, others are taken still; a call counts once however often it asks, and until it ends."""
    admission = Admission(max_calls=4, max_bytes=100)
    with admission.admit(1) as first, admission.admit(1) as second:
        for claim in (first, first, second):
            claim()
        full = pytest.raises(TooManyStoreCallsError, match=r"2 calls; .* server\.max_concurrent_calls")
        with admission.admit(1) as third, admission.admit(1), full:
            third()
    with admission.admit(1) as later:
        later()


def test_half_of_all_bytes_may_wait_for_the_store() -> None:
    """One request alone may be larger, for else it would be asked to come back for ever."""
    admission = Admission(max_calls=10, max_bytes=100)
    with admission.admit(30) as first, admission.admit(30) as second, admission.admit(20) as third:
        first()
        with pytest.raises(TooManyStoreCallsError, match=r"30 bytes; .* server\.max_concurrent_bytes"):
            second()
        third()
    with admission.admit(90) as large:
        large()
