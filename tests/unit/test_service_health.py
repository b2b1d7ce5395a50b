"""What the health service says while a server loads."""

import asyncio

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearshore.service.health import LIVENESS, NOT_SERVING, SERVING, Health


async def _statuses(*, ready: bool) -> dict[str, int]:
    """What a server answers about every name."""
    health, server = Health(), aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await health.begin(["search"])
    await server.start()
    if ready:
        await health.set_ready()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
    await server.stop(None)
    return {name: each.status for name, each in answer.statuses.items()}


def test_a_loading_server_is_alive_but_not_ready() -> None:
    """While collections load, only the name that restarts hang on says SERVING."""
    assert asyncio.run(_statuses(ready=False)) == {"": NOT_SERVING, "search": NOT_SERVING, LIVENESS: SERVING}


def test_a_loaded_server_is_ready() -> None:
    """Once everything is loaded every name says SERVING."""
    assert asyncio.run(_statuses(ready=True)) == {"": SERVING, "search": SERVING, LIVENESS: SERVING}
