"""Where a client connects to. gRPC would take a port of 99999 modulo 65536, and so might reach a stranger."""

from __future__ import annotations

import ipaddress
import re

from nearshore.client.arguments import instance
from nearshore.errors import InvalidAddressError

SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")
MAX_PORT = 65_535
_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|[\w.-]+):(?P<port>[0-9]{1,5})")
_LARGE_PORT = re.compile(r":([0-9]{5,})(?=,|$)")  # of each address of a list


def checked(target: str) -> str:
    """The address itself: HOST:PORT, or a name with one of gRPC's schemes. Raises InvalidAddressError, TypeError."""
    instance("target", target, str)
    if target.partition(":")[0] in SCHEMES:  # as gRPC reads it
        good = target.startswith("unix") or all(int(port) <= MAX_PORT for port in _LARGE_PORT.findall(target))
    else:
        parts = _HOST_PORT.fullmatch(target)
        good = parts is not None and 1 <= int(parts["port"]) <= MAX_PORT and _is_ipv6(parts["ipv6"] or "::1")
    if not good:
        raise InvalidAddressError(target)
    return target


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
