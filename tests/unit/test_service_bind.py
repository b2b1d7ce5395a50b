"""What a server may listen on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from nearshore.errors import AddressUnusableError, PortInUseError
from nearshore.service.server import bind


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
