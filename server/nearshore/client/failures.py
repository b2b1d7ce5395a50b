"""What a failed call means, as the errors of nearshore.errors that the server raised."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from nearshore import errors
from nearshore.errors import NearshoreError
from nearshore.wire import DETAILS_KEY, ERROR_DOMAIN, REMEDY_KEY

BRANCHES: dict[StatusCode, type[NearshoreError]] = {
    StatusCode.INVALID_ARGUMENT: errors.InvalidArgumentError,
    StatusCode.NOT_FOUND: errors.NotFoundError,
    StatusCode.ALREADY_EXISTS: errors.AlreadyExistsError,
    StatusCode.FAILED_PRECONDITION: errors.PreconditionError,
    StatusCode.ABORTED: errors.HistoryChangedError,
    StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
    StatusCode.UNAVAILABLE: errors.UnavailableError,
    StatusCode.DATA_LOSS: errors.CorruptionError,
}
# How gRPC's words begin where there is no connection; all others tell of one that was there.
_NOT_CONNECTED = (
    "connections to all backends failing",
    "failed to connect to all addresses",
    "errors resolving ",
    "empty address list",
)
# gRPC's words for a message that is not carried; older releases leave the side out.
_TOO_LARGE = re.compile(r"(?:(CLIENT|SERVER): )?(Sent|Received) message larger than max \((\d+) vs\. (\d+)\)")


class ServerUnreachableError(errors.UnavailableError):
    """No server answers at the address."""

    reason = "SERVER_UNREACHABLE"

    def __init__(self, target: str, detail: str) -> None:
        """Name the target as it was given, and what gRPC says."""
        super().__init__(
            f"No nearshore server answers at {target} ({detail}).",
            "Start one with `nearshore serve`, or name another address.",
            target=target,
            detail=detail,
        )


class ServerNotReadyError(errors.UnavailableError):
    """A server answers at the address, and takes no calls yet."""

    reason = "SERVER_NOT_READY"

    def __init__(self, target: str, timeout_s: float) -> None:
        """timeout_s: how long it was waited for."""
        super().__init__(
            f"The nearshore server at {target} runs, but was not ready within {timeout_s:g} s.",
            "It is loading its collections, or shutting down: its log says which, and how far it is. Wait longer.",
            target=target,
        )


class OlderServerError(errors.ServiceError):
    """The server does not know the call."""

    reason = "SERVER_OLDER"

    def __init__(self, target: str) -> None:
        """target: as it was given."""
        super().__init__(
            f"The server at {target} does not know this call.",
            "Upgrade it: it is older than this client, where it is a nearshore server at all.",
            target=target,
        )


class NoAnswerError(errors.DeadlineError):
    """The call's deadline passed before a server answered anything."""

    reason = "NO_ANSWER_IN_TIME"

    def __init__(self, target: str, detail: str) -> None:
        """target: as it was given; detail: what gRPC says."""
        super().__init__(
            f"{target} did not answer before the deadline of the call ({detail}).",
            "Allow more time (timeout_s), or see in the server's log what it waits for. A write may have happened, or "
            "may yet: repeat it with the same request_id, or, if it has none, look first.",
            target=target,
            detail=detail,
        )


_WRITTEN = " If the call was a write, it has happened."


class MessageTooLargeError(errors.InvalidArgumentError):
    """A request or an answer has more bytes than this client or the server lets through."""

    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, *, request: bool, by_client: bool, size_bytes: int, max_message_bytes: int) -> None:
        """request: it is that, not the answer; by_client: this client's limit stopped it, not the server's."""
        setting = "max_message_bytes of this client" if by_client else "server.max_message_bytes of the server"
        less = "Send fewer documents or texts" if request else "Ask for less, such as fewer texts or a lower limit,"
        super().__init__(
            f"The {'request' if request else 'answer'} has {size_bytes} bytes, more than {setting} allows "
            f"({max_message_bytes}).",
            f"{less} in one call, or raise that limit.{'' if request else _WRITTEN}",
            size_bytes=size_bytes,
            max_message_bytes=max_message_bytes,
        )


class ClientClosedError(errors.PreconditionError):
    """The client was closed before the call, or while it waited to be made again."""

    reason = "CLIENT_CLOSED"

    def __init__(self, target: str) -> None:
        """target: as it was given."""
        super().__init__(
            f"The client for {target} is closed, so this call was not made, or not made again.",
            "Close a client when its calls have ended; make a new one for more.",
            target=target,
        )


def not_ready(
    target: str, timeout_s: float, code: StatusCode, details: str | None, *, answered: bool
) -> errors.UnavailableError:
    """Why waiting for a server ended with `code`; answered: whether it had said how it is."""
    if answered and code is StatusCode.DEADLINE_EXCEEDED:
        return ServerNotReadyError(target, timeout_s)
    return ServerUnreachableError(target, f"not ready within {timeout_s:g} s: {details}")


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: the error that it means, and what is known about trying again."""

    error: NearshoreError
    retry_after_s: float | None = None  # the server did nothing, and says that trying again can help after so long
    reached: bool = False  # there was a connection to a server, whatever became of it
    lost: bool = False  # there is no connection any more; whether the server did anything is not known


def failure_of(code: StatusCode, details: str | None, trailing: Iterable[Any] | None, target: str) -> Failure:
    """What the failure of a call to `target` means, by the reason in its ErrorInfo, else by its code.

    trailing holds (key, value) pairs, which grpc and grpc.aio type differently.
    An error class that this process has not loaded is stood in for by one of the same branch and reason.
    """
    info, retry_after_s = _read_details(trailing)
    if info is None and code is StatusCode.UNAVAILABLE:
        reached = not (details or "").startswith(_NOT_CONNECTED)
        return Failure(ServerUnreachableError(target, details or "no details"), reached=reached, lost=True)
    if info is None and code is StatusCode.DEADLINE_EXCEEDED:
        return Failure(NoAnswerError(target, details or "no details"))
    if info is None and code is StatusCode.UNIMPLEMENTED:
        return Failure(OlderServerError(target), reached=True)
    too_large = _TOO_LARGE.search(details or "") if info is None and code is StatusCode.RESOURCE_EXHAUSTED else None
    if too_large is not None:
        return Failure(_too_large(*too_large.groups()), reached=True)
    kind = _class_of(code, info.reason if info is not None else f"GRPC_{code.name}")
    error = kind.__new__(kind)
    facts = dict(info.metadata) if info is not None else {}
    remedy = facts.pop(REMEDY_KEY, "")
    NearshoreError.__init__(error, (details or code.name).removesuffix(f" {remedy}" if remedy else ""), remedy)
    error.metadata.update(facts)
    if info is None:
        ending = code is StatusCode.CANCELLED  # nobody here did: so a server that just ends answers
        return Failure(error, reached=ending, lost=ending)
    return Failure(error, retry_after_s, reached=True)


def _too_large(side: str | None, did: str, size: str, limit: str) -> MessageTooLargeError:
    by_client = side == "CLIENT" or (side is None and did == "Sent")
    return MessageTooLargeError(
        request=by_client == (did == "Sent"),
        by_client=by_client,
        size_bytes=int(size),
        max_message_bytes=int(limit),
    )


def _read_details(trailing: Iterable[Any] | None) -> tuple[ErrorInfo | None, float | None]:
    """Our ErrorInfo among the details of a status, and the seconds of its RetryInfo, where they are there."""
    for key, value in trailing or ():
        if key == DETAILS_KEY:
            details = Status.FromString(value).details
            break
    else:
        return None, None
    info, retry = ErrorInfo(), RetryInfo()
    ours = any(each.Unpack(info) and info.domain == ERROR_DOMAIN for each in details)
    told = any(each.Unpack(retry) for each in details)
    delay = retry.retry_delay
    return info if ours else None, delay.seconds + delay.nanos / 1e9 if told else None


@cache
def _class_of(code: StatusCode, reason: str) -> type[NearshoreError]:
    branch = BRANCHES.get(code, NearshoreError)
    for kind in (branch, *_descendants(NearshoreError)):
        if kind.reason == reason and "reason" in vars(kind):
            return kind
    return type(branch.__name__, (branch,), {"reason": reason, "__doc__": branch.__doc__})


def _descendants(kind: type[NearshoreError]) -> Iterable[type[NearshoreError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
