"""What a client says of a server that it waited for in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearshore.client import AsyncClient, Client, ServerNotReadyError, ServerUnreachableError
from nearshore.errors import NearshoreError


class Loading(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """A server that is not ready when the call ends with this code."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        context.abort(self._code, "over")


@contextmanager
def serving(code: grpc.StatusCode) -> Iterator[str]:
    """The address of such a server."""
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(Loading(code), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


async def wait_async(target: str) -> None:
    async with AsyncClient(target) as client:
        await client.wait_ready()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, ServerNotReadyError),
        (grpc.StatusCode.UNAVAILABLE, ServerUnreachableError),
    ],
)
def test_a_server_that_is_loading_is_not_called_absent(code: grpc.StatusCode, kind: type[NearshoreError]) -> None:
    """A server that answers until the time is over is not ready; one that goes away is not reached."""
    with serving(code) as target:
        with Client(target) as client, pytest.raises(kind):
            client.wait_ready()
        with pytest.raises(kind):
            asyncio.run(wait_async(target))
