"""The mapping of errors to gRPC statuses."""

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from nearshore import errors
from nearshore.client.failures import failure_of
from nearshore.embedding.errors import ModelRunError
from nearshore.service.status import bug_status, code_of, status_of
from nearshore.wire import DETAILS_KEY

HEADER_BYTES = 8 << 10  # what gRPC takes by default


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidWriteTokenError("x"), StatusCode.INVALID_ARGUMENT),
        (errors.CollectionNotFoundError("x"), StatusCode.NOT_FOUND),
        (errors.CollectionExistsError("x"), StatusCode.ALREADY_EXISTS),
        (errors.PreconditionError("x"), StatusCode.FAILED_PRECONDITION),
        (errors.HistoryChangedError("x"), StatusCode.ABORTED),
        (errors.OverloadedError("x"), StatusCode.RESOURCE_EXHAUSTED),
        (errors.DeadlineError("x"), StatusCode.DEADLINE_EXCEEDED),
        (errors.UnavailableError("x"), StatusCode.UNAVAILABLE),
        (errors.StorageFullError("x"), StatusCode.RESOURCE_EXHAUSTED),
        (errors.CorruptionError("x"), StatusCode.DATA_LOSS),
        (errors.ServiceError("x"), StatusCode.FAILED_PRECONDITION),
        (errors.NearshoreError("x"), StatusCode.INTERNAL),
    ],
)
def test_each_branch_has_its_code(error: errors.NearshoreError, code: StatusCode) -> None:
    """A class is mapped by its nearest ancestor that has a code."""
    assert status_of(error, "id")[0] is code
    assert code_of(type(error)) is code


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.OverloadedError("x"), True),
        (errors.UnavailableError("x"), True),
        (errors.CommitUnknownError("x"), False),
        (ModelRunError(RuntimeError()), False),
        (errors.StorageFullError("x"), False),
        (errors.DeadlineError("x"), False),
    ],
)
def test_retry_info_only_where_a_blind_retry_helps(error: errors.NearshoreError, again: bool) -> None:
    """A write of unknown outcome must not be repeated blindly, and what fails again as a rule not at all."""
    details = status_of(error, "id")[1].details
    assert any(detail.Is(RetryInfo.DESCRIPTOR) for detail in details) is again


def test_a_bug_tells_nothing_but_its_request_id() -> None:
    """Exception texts can hold what other callers sent."""
    code, status = bug_status("abc")
    info = ErrorInfo()
    status.details[0].Unpack(info)
    assert code is StatusCode.INTERNAL
    assert "abc" in status.message
    assert (info.reason, dict(info.metadata)) == ("INTERNAL", {"request_id": "abc"})


@given(message=st.text(max_size=4_000), remedy=st.text(max_size=4_000), fact=st.text(max_size=4_000))
def test_a_status_fits_into_headers_and_survives(message: str, remedy: str, fact: str) -> None:
    """However long or odd the texts, the status is sent, and the client makes the same error of it."""
    code, status = status_of(errors.PreconditionError(message, remedy, fact=fact), "id")
    packed = status.SerializeToString()
    assert len(packed) * 4 / 3 + 3 * len(status.message.encode()) < HEADER_BYTES
    error = failure_of(code, status.message, [(DETAILS_KEY, packed)], "target").error
    assert isinstance(error, errors.PreconditionError)
    assert str(error) == (status.message or code.name).rstrip()
    assert error.remedy == "" or status.message.endswith(error.remedy)
    assert bool(error.remedy) is bool(remedy.strip())


def test_the_client_raises_the_servers_class() -> None:
    """`except CollectionNotFoundError` works on both sides of the wire."""
    code, status = status_of(errors.CollectionNotFoundError("docs"), "id-1")
    error = failure_of(code, status.message, [(DETAILS_KEY, status.SerializeToString())], "target").error
    assert type(error) is errors.CollectionNotFoundError
    assert error.metadata == {"collection": "docs", "request_id": "id-1"}


def test_the_client_tells_what_is_wrong_from_what_to_do() -> None:
    """As the server did, however long the message: that is cut, not the remedy; the metadata does not repeat it."""
    for message in ("There is no such thing.", "x" * 5_000):
        code, status = status_of(errors.NotFoundError(message, "Look it up."), "id")
        error = failure_of(code, status.message, [(DETAILS_KEY, status.SerializeToString())], "target").error
        assert error.message in message
        assert error.remedy == "Look it up."
        assert str(error) == status.message
        assert error.metadata == {"request_id": "id"}


def test_the_message_of_a_server_that_names_no_remedy_stays_whole() -> None:
    """An older one, whose remedy is the end of the message alone."""
    _, status = status_of(errors.NotFoundError("Nothing.", "Look."), "id")
    status.details[0].Pack(ErrorInfo(reason="NOTHING", domain="nearshore"))
    error = failure_of(StatusCode.NOT_FOUND, "Nothing. Look.", [(DETAILS_KEY, status.SerializeToString())], "t").error
    assert (error.message, error.remedy) == ("Nothing. Look.", "")


def test_an_unknown_reason_becomes_its_branch() -> None:
    """A newer server's error is still caught by its branch, and keeps its reason."""
    _, status = status_of(errors.CollectionNotFoundError("x"), "id")
    status.details[0].Pack(ErrorInfo(reason="BRAND_NEW", domain="nearshore"))
    error = failure_of(StatusCode.NOT_FOUND, "x", [(DETAILS_KEY, status.SerializeToString())], "target").error
    assert isinstance(error, errors.NotFoundError)
    assert error.reason == "BRAND_NEW"
