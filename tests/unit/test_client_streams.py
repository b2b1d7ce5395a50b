"""What ended a stream, as a client tells it."""

from __future__ import annotations

from grpc import StatusCode

from nearshore.client import StreamLostError
from nearshore.client.streams import ending
from nearshore.errors import UnavailableError


def test_a_status_that_grpc_forgot_is_told_as_a_lost_stream() -> None:
    """What grpc.aio says where a call ends during a write is an UnavailableError with a remedy, and nothing else is."""
    forgotten = ending(StatusCode.INTERNAL, "Internal error from Core", (), "host:1")
    assert isinstance(forgotten, StreamLostError)
    assert isinstance(forgotten, UnavailableError)
    assert "new stream" in forgotten.remedy
    for code, details in ((StatusCode.INTERNAL, "a bug"), (StatusCode.UNKNOWN, "Internal error from Core")):
        assert not isinstance(ending(code, details, (), "host:1"), StreamLostError)
