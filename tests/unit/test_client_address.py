"""Which addresses a client connects to."""

from __future__ import annotations

import asyncio

import pytest

from nearshore.cli import main
from nearshore.client import AsyncClient, Client, InvalidAddressError
from nearshore.client.address import checked
from nearshore.exit_codes import ExitCode

BAD = [
    "", "foo", "foo:bar", ":50051", "localhost:", "localhost:0", "localhost:65536", "localhost:99999", "a b:1",
    "http://localhost:50051", "::1:50051", "[::1]", "[::1]:99999", "[foo]:1", "localhost:1\n", "localhost:١",
    "dns:///localhost:99999", "ipv4:127.0.0.1:99999,127.0.0.2:1",
]  # fmt: skip


@pytest.mark.parametrize(
    "target",
    [
        "localhost:1", "my_host-1.example:65535", "127.0.0.1:50051", "[::1]:50051", "[fe80::1%eth0]:50051",
        "dns:///nearshore.example:50051", "dns:nearshore.example", "ipv4:127.0.0.1:50051", "unix:///run/nearshore:99999",
        "ipv4:127.0.0.1:50051,127.0.0.2:50051", "ipv6:[::1]:50051,[::12]:65535",
    ],
)  # fmt: skip
def test_an_address_is_a_host_and_a_port(target: str) -> None:
    """Names that only gRPC understands are left to it."""
    assert checked(target) == target


@pytest.mark.parametrize("target", BAD)
def test_any_other_address_is_refused_before_anything_is_sent(target: str) -> None:
    """Both clients say what an address looks like; a port that gRPC would wrap around reaches nobody."""

    async def connect() -> None:
        AsyncClient(target)

    with pytest.raises(InvalidAddressError, match="HOST:PORT"):
        Client(target)
    with pytest.raises(InvalidAddressError, match="HOST:PORT"):
        asyncio.run(connect())


@pytest.mark.parametrize("command", [["search", "-c", "notes", "keys"], ["index", "README.md", "-c", "notes"]])
@pytest.mark.parametrize("target", ["", "localhost:99999"])
def test_the_command_line_calls_it_wrong_usage(
    command: list[str], target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty one is not taken for none: it is a variable that somebody forgot to set."""
    assert main.run(["--server", target, *command]) == ExitCode.USAGE
    assert f"{target!r} is not the address of a server" in capsys.readouterr().err
