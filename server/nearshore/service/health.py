"""grpc.health.v1 for the server as a whole (""), for each service, and "liveness": that the process answers at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health, health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LIVENESS = "liveness"
"""Served from the first answer on, whatever loads and whoever is away: what a restart would cure, and nothing else."""


class Health:
    """The library's servicer, whose watches end when the server stops instead of using up its whole grace."""

    def __init__(self) -> None:
        """Say of nothing that it is serving."""
        self.serving = False  # what is said of the server as a whole; from any thread
        self._servicer: Any = health.aio.HealthServicer()
        self._names: tuple[str, ...] = ("",)
        self._closing = asyncio.Event()

    async def begin(self, services: Iterable[str]) -> None:
        """Name the services; none of them is ready. That the process lives is said from now on."""
        self._names = ("", *services)
        for name in self._names:
            await self._servicer.set(name, NOT_SERVING)
        await self._servicer.set(LIVENESS, SERVING)

    async def set_ready(self) -> None:
        """Everything takes calls from now on."""
        for name in self._names:
            await self._servicer.set(name, SERVING)
        self.serving = True

    async def drain(self) -> None:
        """Tell those who ask and those who watch to send their calls elsewhere, for good."""
        self.serving = False
        await self._servicer.enter_graceful_shutdown()

    async def close(self) -> None:
        """Nothing takes calls any more; tell those who watch, and let them go."""
        await self.drain()
        self._closing.set()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 -- named by the proto
        """Answer whether a service is ready."""
        return await self._servicer.Check(request, context)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802 -- named by the proto
        """Answer for every service at once; the library leaves this newer method out."""
        del request
        statuses = {
            name: await self._servicer.Check(health_pb2.HealthCheckRequest(service=name), context)
            for name in (*self._names, LIVENESS)
        }
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 -- named by the proto
        """Tell each change until the caller leaves or the server stops."""
        watch = asyncio.ensure_future(self._servicer.Watch(request, context))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((watch, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            closing.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        if self._closing.is_set():
            await context.write(health_pb2.HealthCheckResponse(status=NOT_SERVING))
