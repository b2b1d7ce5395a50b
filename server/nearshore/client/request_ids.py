"""The request ids under which servers log the calls of this program."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from nearshore.errors import InvalidRequestIdError
from nearshore.wire import LOGGED_REQUEST_ID, REQUEST_ID_KEY

_current: ContextVar[str] = ContextVar("nearshore_request_id", default="")


@contextlib.contextmanager
def logged_as(request_id: str) -> Iterator[None]:
    """Let servers log every call of this block, thread and task, as request_id; without, each call gets one of its own.

    request_id: 1 to 128 printable ASCII characters without spaces, for example the id of a request that your program
    is answering. It is not the request_id of a write: it need not be unique. Raises InvalidRequestIdError.
    """
    if not LOGGED_REQUEST_ID.fullmatch(request_id):
        raise InvalidRequestIdError(
            f"request_id {request_id[:40]!r} cannot be logged.",
            "Use 1 to 128 printable ASCII characters without spaces, for example a UUID.",
        )
    token = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(token)


def metadata() -> tuple[tuple[str, str], ...] | None:
    """What a call sends beside its message: the request id where there is one."""
    request_id = _current.get()
    return ((REQUEST_ID_KEY, request_id),) if request_id else None
