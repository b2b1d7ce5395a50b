"""What a server takes on at once."""

from __future__ import annotations

import pytest

from nearshore.service.admission import Admission, TooManyBytesError, TooManyCallsError


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
