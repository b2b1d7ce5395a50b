"""What a failed call becomes in the client: the server's error by its reason, else one of the code's branch."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from nearshore import errors
from nearshore.client.failures import Failure, NoAnswerError, ServerUnreachableError, failure_of
from nearshore.wire import DETAILS_KEY, ERROR_DOMAIN


def trailing(reason: str, domain: str = ERROR_DOMAIN, **metadata: str) -> list[tuple[str, str | bytes]]:
    """Trailing metadata with this reason behind another detail, among other keys."""
    packed = []
    retry = RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    for detail in (retry, ErrorInfo(reason=reason, domain=domain, metadata=metadata)):
        packed.append(Any())
        packed[-1].Pack(detail)
    return [("x-request-id", "id"), (DETAILS_KEY, Status(details=packed).SerializeToString())]


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND", errors.CollectionNotFoundError),
        (StatusCode.FAILED_PRECONDITION, "WRITE_TOKEN_EXPIRED", errors.WriteTokenExpiredError),
        (StatusCode.UNAVAILABLE, "COMMIT_OUTCOME_UNKNOWN", errors.CommitUnknownError),
        (StatusCode.UNAVAILABLE, "UNAVAILABLE", errors.UnavailableError),
        (StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL", errors.StorageFullError),
        (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", errors.OverloadedError),
        (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", errors.DeadlineError),
        (StatusCode.INTERNAL, "INTERNAL", errors.NearshoreError),
    ],
)
def test_a_reason_names_its_class(code: StatusCode, reason: str, kind: type[errors.NearshoreError]) -> None:
    """The reason decides, not the code: one code has several, and not all of them may be retried."""
    failure = failure_of(code, "Message. Remedy.", trailing(reason, field="ids"), "target")
    assert (failure.retry_after_s, failure.reached, failure.lost) == (1.5, True, False)
    error = failure.error
    assert type(error) is kind
    assert error.reason == reason
    assert str(error) == "Message. Remedy."
    assert error.metadata == {"field": "ids"}


@pytest.mark.parametrize(
    ("code", "branch"),
    [
        (StatusCode.INVALID_ARGUMENT, errors.InvalidArgumentError),
        (StatusCode.NOT_FOUND, errors.NotFoundError),
        (StatusCode.ALREADY_EXISTS, errors.AlreadyExistsError),
        (StatusCode.FAILED_PRECONDITION, errors.PreconditionError),
        (StatusCode.ABORTED, errors.HistoryChangedError),
        (StatusCode.RESOURCE_EXHAUSTED, errors.OverloadedError),
        (StatusCode.DATA_LOSS, errors.CorruptionError),
        (StatusCode.CANCELLED, errors.NearshoreError),
    ],
)
def test_a_bare_code_becomes_its_branch(code: StatusCode, branch: type[errors.NearshoreError]) -> None:
    """What gRPC refuses by itself is caught by branch; its reason says that it is gRPC's, not the server's word."""
    failure = failure_of(code, "too large", None, "target")
    error = failure.error
    assert failure.lost is failure.reached is (code is StatusCode.CANCELLED)
    assert isinstance(error, branch)
    assert error.reason == f"GRPC_{code.name}"
    assert (error.message, error.metadata) == ("too large", {})


def test_a_server_that_does_not_know_a_call_is_older() -> None:
    """What gRPC says of it names neither the server nor what to do."""
    failure = failure_of(StatusCode.UNIMPLEMENTED, "Method not found!", [], "host:1")
    assert failure.reached
    assert failure.error.reason == "SERVER_OLDER"
    assert "host:1" in failure.error.message
    assert "Upgrade it" in failure.error.remedy


def test_no_server_is_told_by_its_address() -> None:
    """UNAVAILABLE without a reason is a connection that failed: the message names where to, and what to do."""
    failure = failure_of(StatusCode.UNAVAILABLE, "connection refused", [], "host:1")
    assert failure == Failure(error := failure.error, reached=True, lost=True)
    assert isinstance(error, ServerUnreachableError)
    assert error.metadata == {"target": "host:1", "detail": "connection refused"}
    assert "host:1" in str(error)
    assert "connection refused" in str(error)
    assert "nearshore serve" in str(error)


@pytest.mark.parametrize(
    ("detail", "reached"),
    [
        ("connections to all backends failing; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused", False),
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused", False),
        ("errors resolving host.invalid:1: [field:hostname lookup error: Domain name not found]", False),
        ("empty address list: (host)", False),
        ("Stream removed (Socket closed)", True),
        ("Stream removed (recvmsg:Connection reset by peer (104))", True),
    ],
)
def test_a_connection_that_broke_is_not_one_that_was_never_made(detail: str, reached: bool) -> None:
    """Code and metadata are the same for both; only gRPC's words differ."""
    failure = failure_of(StatusCode.UNAVAILABLE, detail, (), "host:1")
    assert (failure.lost, failure.reached) == (True, reached)


def test_a_reason_of_another_service_is_not_ours() -> None:
    """A proxy's ErrorInfo has a domain of its own; the same word there means something else, and so does RetryInfo."""
    theirs = trailing("COLLECTION_NOT_FOUND", domain="proxy.example")
    failure = failure_of(StatusCode.NOT_FOUND, "x", theirs, "target")
    assert failure == Failure(error := failure.error)
    assert type(error) is not errors.CollectionNotFoundError
    assert isinstance(error, errors.NotFoundError)
    assert error.reason == "GRPC_NOT_FOUND"


def test_a_deadline_that_passes_here_says_what_to_do() -> None:
    """DEADLINE_EXCEEDED without a reason is this side's own: nobody knows what the server does, and it says so."""
    failure = failure_of(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", None, "host:1")
    assert failure == Failure(error := failure.error)
    assert isinstance(error, NoAnswerError)
    assert "host:1 did not answer" in error.message
    assert "timeout_s" in error.remedy
    assert "request_id" in error.remedy


def test_a_call_without_details_says_its_code() -> None:
    """There is always a message."""
    assert str(failure_of(StatusCode.ABORTED, None, None, "target").error) == "ABORTED"
