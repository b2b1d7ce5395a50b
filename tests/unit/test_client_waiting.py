"""Which server a client waits for, and what it says of one that it waited for in vain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearshore.client import AsyncClient, Client, ServerNotReadyError, ServerUnreachableError
from tests.ports import HOSTS, free_port

WAIT_S = 20.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
Wait = Callable[[str, float], None]


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """Says the same for ever, or goes away after one answer."""

    def __init__(self, status: int, *, leaves: bool = False) -> None:
        self._status = status
        self._leaves = leaves
        self.asked = threading.Event()

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if self._leaves and self.asked.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "over")
        self.asked.set()
        return health_pb2.HealthCheckResponse(status=self._status)


@contextmanager
def serving(health: Health, address: str = "127.0.0.1:0") -> Iterator[str]:
    """The address of a server with nothing else."""
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        server.stop(None).wait()


def wait_blocking(target: str, timeout_s: float) -> None:
    with Client(target) as client:
        client.wait_ready(timeout_s)


def wait_async(target: str, timeout_s: float) -> None:
    async def wait() -> None:
        async with AsyncClient(target) as client:
            await client.wait_ready(timeout_s)

    asyncio.run(wait())


both = pytest.mark.parametrize("wait", [wait_blocking, wait_async], ids=["blocking", "asyncio"])


@both
def test_a_server_that_is_loading_is_not_called_absent(wait: Wait) -> None:
    """It answers until the time is over."""
    with serving(Health(NOT_SERVING)) as target, pytest.raises(ServerNotReadyError):
        wait(target, 1.5)


@both
def test_a_server_that_goes_away_is_not_waited_for(wait: Wait) -> None:
    """It was loading, and is not reached any more."""
    with serving(Health(NOT_SERVING, leaves=True)) as target, pytest.raises(ServerUnreachableError):
        wait(target, WAIT_S)


@both
def test_a_server_that_loads_does_not_hide_one_that_is_ready(wait: Wait) -> None:
    """Of several the first that is ready ends the wait, although another one answered first."""
    loading, port = Health(NOT_SERVING), free_port()
    addresses = [f"{host}:{port}" for host in HOSTS[:2]]
    with ExitStack() as servers, ThreadPoolExecutor(1) as pool:
        servers.enter_context(serving(loading, addresses[0]))
        waiting = pool.submit(wait, "ipv4:" + ",".join(addresses), WAIT_S)
        assert loading.asked.wait(WAIT_S)
        servers.enter_context(serving(Health(SERVING), addresses[1]))
        waiting.result(2 * WAIT_S)


@both
def test_a_server_that_hangs_does_not_hide_one_that_is_ready(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never answers is left for the next."""
    monkeypatch.setattr("nearshore.client.channels.ASK_READY_S", 0.2)
    port, over = free_port(), threading.Event()

    class Hanging(Health):
        def Check(
            self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
        ) -> health_pb2.HealthCheckResponse:
            self.asked.set()
            over.wait(2 * WAIT_S)
            return super().Check(request, context)

    hanging, addresses = Hanging(NOT_SERVING), [f"{host}:{port}" for host in HOSTS[:2]]
    with ExitStack() as servers, ThreadPoolExecutor(1) as pool:
        servers.enter_context(serving(hanging, addresses[0]))
        servers.callback(over.set)
        waiting = pool.submit(wait, "ipv4:" + ",".join(addresses), WAIT_S)
        assert hanging.asked.wait(WAIT_S)
        servers.enter_context(serving(Health(SERVING), addresses[1]))
        waiting.result(2 * WAIT_S)
