"""Errors as gRPC statuses: the one place that knows which branch of errors.py has which code."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from nearshore import errors
from nearshore.embedding.errors import ModelRunError
from nearshore.wire import ERROR_DOMAIN, REMEDY_KEY

RETRY_AFTER_S = 1
# A status travels in HTTP/2 headers, of which gRPC takes 8 KiB; escaped, the message takes up to three times its size,
# and once more inside the details.
MAX_MESSAGE_BYTES = 1_024
MAX_METADATA_BYTES = 256
MAX_REMEDY_BYTES = 512

CODES: dict[type[errors.NearshoreError], StatusCode] = {
    errors.InvalidArgumentError: StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: StatusCode.ALREADY_EXISTS,
    errors.PreconditionError: StatusCode.FAILED_PRECONDITION,
    errors.HistoryChangedError: StatusCode.ABORTED,
    errors.OverloadedError: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineError: StatusCode.DEADLINE_EXCEEDED,
    errors.UnavailableError: StatusCode.UNAVAILABLE,
    errors.StorageFullError: StatusCode.RESOURCE_EXHAUSTED,
    errors.CorruptionError: StatusCode.DATA_LOSS,
    errors.ServiceError: StatusCode.FAILED_PRECONDITION,
}
RETRYABLE = (errors.OverloadedError, errors.UnavailableError)
# Clients repeat on their own whatever is retryable: not what may have been done, nor what fails again as a rule.
NOT_RETRYABLE = (errors.CommitUnknownError, ModelRunError)


def code_of(kind: type[errors.NearshoreError]) -> StatusCode:
    """The code of an error class: that of its nearest ancestor in CODES; INTERNAL for one without."""
    return next((CODES[base] for base in kind.__mro__ if base in CODES), StatusCode.INTERNAL)


def status_of(error: errors.NearshoreError, request_id: str) -> tuple[StatusCode, Status]:
    """The code and the google.rpc.Status, with ErrorInfo, and RetryInfo where trying again can help."""
    metadata = {key: _cut(value, MAX_METADATA_BYTES) for key, value in error.metadata.items()}
    metadata["request_id"] = request_id
    text, remedy = error.message, _cut(error.remedy, MAX_REMEDY_BYTES).rstrip()
    if remedy:
        metadata[REMEDY_KEY] = remedy
        text = f"{_cut(text, MAX_MESSAGE_BYTES - len(remedy.encode()) - 1)} {remedy}"  # what to do is never cut off
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=metadata)]
    if isinstance(error, RETRYABLE) and not isinstance(error, NOT_RETRYABLE):
        details.append(RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)))
    code = code_of(type(error))
    return code, _status(code, text.rstrip(), details)


def bug_status(request_id: str) -> tuple[StatusCode, Status]:
    """What a caller learns of a bug: that there was one, and the id under which the log has its traceback."""
    message = f"The server made a mistake. Its log has the cause under request id {request_id}."
    info = ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN, metadata={"request_id": request_id})
    return StatusCode.INTERNAL, _status(StatusCode.INTERNAL, message, [info])


def _status(code: StatusCode, message: str, details: list[Message]) -> Status:
    packed = []
    for detail in details:
        holder = Any()
        holder.Pack(detail)
        packed.append(holder)
    number: int = code.value[0]
    return Status(code=number, message=_cut(message, MAX_MESSAGE_BYTES), details=packed)


def _cut(text: str, size_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:size_bytes].decode("utf-8", "ignore")
