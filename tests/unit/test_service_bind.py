"""What a server may listen on, and how long its connections last."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import pytest
from grpc import aio

from nearshore.errors import AddressUnusableError, PortInUseError
from nearshore.service.port import bind


async def listen(host: str, port: int, then: str | None = None) -> int:
    """Bind one server, then perhaps another while the first holds its port."""
    server, bound = bind(host, port, max_message_bytes=1 << 20)
    try:
        return bound if then is None else await listen(then, bound)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_two_servers_never_share_a_port(host: str) -> None:
    """Not even where the second one listens on every address and the first on one of them."""
    assert asyncio.run(listen(host, 0)) > 0
    with pytest.raises(PortInUseError):
        asyncio.run(listen("127.0.0.1", 0, then=host))


@pytest.mark.parametrize("host", ["", "nohost.invalid", "192.0.2.1", "[::1]", "a" * 70 + ".example"])
def test_an_address_that_is_not_ours_is_not_called_a_port_in_use(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The error names the host, and gRPC writes no line of its own."""
    with pytest.raises(AddressUnusableError, match="--host"):
        asyncio.run(listen(host, 0))
    assert capfd.readouterr().err == ""


def test_a_port_that_another_program_listens_on_is_in_use() -> None:
    """It need not be a server of ours."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortInUseError):
        asyncio.run(listen("127.0.0.1", other.getsockname()[1]))


async def peers(max_connection_age_s: float, calls: int) -> set[str]:
    """The addresses from which a caller's calls arrive, one connection at a time; stops early at the second."""

    async def peer(request: bytes, context: aio.ServicerContext[Any, Any]) -> bytes:
        return context.peer().encode()

    server, port = bind("127.0.0.1", 0, max_message_bytes=1 << 20, max_connection_age_s=max_connection_age_s)
    handler: Any = grpc.unary_unary_rpc_method_handler(peer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Peer": handler}),))
    await server.start()
    seen: set[str] = set()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/test.Test/Peer")
        while calls and len(seen) < 2:
            seen.add(await call(b""))
            calls -= 1
    await server.stop(None)
    return seen


def test_connections_end_after_their_age() -> None:
    """A client connects anew, which no call notices; without an age, a connection stays."""
    assert len(asyncio.run(peers(0.1, calls=100_000))) == 2
    assert len(asyncio.run(peers(0.0, calls=500))) == 1
