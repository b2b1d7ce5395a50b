"""Waits until a server, or one of those that a name has, has loaded its model and its collections."""

from __future__ import annotations

import asyncio
import time

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearshore.client import channels
from nearshore.client.arguments import timeout
from nearshore.client.failures import not_ready
from nearshore.client.retries import Caller


class _Asking:
    """One wait: when to ask, and what an answer or a failure means for it."""

    def __init__(self, caller: Caller, timeout_s: float) -> None:
        self._caller = caller
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout(timeout_s)
        self._answered = False

    def wait_s(self) -> float:
        """For an answer, before the next server is asked."""
        return min(self._deadline - time.monotonic(), channels.ASK_READY_S)

    def heard(self, answer: health_pb2.HealthCheckResponse) -> bool:
        """Whether the wait is over."""
        self._answered = True
        self._caller.reached = self._caller.reached or channels.is_serving(answer)
        return channels.is_serving(answer)

    def failed(self, failure: grpc.RpcError | aio.AioRpcError) -> None:
        """Raise what ends the wait, if this does."""
        code, details = failure.code(), failure.details()
        if code is not grpc.StatusCode.DEADLINE_EXCEEDED or time.monotonic() >= self._deadline:
            target = self._caller.target
            raise not_ready(target, self._timeout_s, code, details, answered=self._answered) from None


def wait_ready(channel: grpc.Channel, caller: Caller, timeout_s: float) -> None:
    """See Client.wait_ready."""
    asking, health = _Asking(caller, timeout_s), health_pb2_grpc.HealthStub(channel)
    while True:
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=asking.wait_s(), wait_for_ready=True)
        except grpc.RpcError as failure:
            asking.failed(failure)
        else:
            if asking.heard(answer):
                return
        time.sleep(channels.ASK_READY_PAUSE_S)  # another server may be ready before this one


async def wait_ready_async(channel: aio.Channel, caller: Caller, timeout_s: float) -> None:
    """The same for AsyncClient."""
    asking, health = _Asking(caller, timeout_s), health_pb2_grpc.HealthStub(channel)
    while True:
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=asking.wait_s(), wait_for_ready=True)
        except aio.AioRpcError as failure:
            asking.failed(failure)
        else:
            if asking.heard(answer):
                return
        await asyncio.sleep(channels.ASK_READY_PAUSE_S)
