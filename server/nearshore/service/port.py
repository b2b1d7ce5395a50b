"""The gRPC server before it has services: where it listens, and how large a message may be."""

from __future__ import annotations

import errno
import ipaddress
import socket

from grpc import aio

from nearshore.errors import AddressUnusableError, PortInUseError

LEAST_PING_INTERVAL_MS = 5_000  # the shipped client pings every ten seconds
KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000


def bind(
    host: str,
    port: int,
    *,
    max_message_bytes: int,
    max_connection_age_s: float = 0.0,
    max_connection_age_grace_s: float = 600.0,
) -> tuple[aio.Server, int]:
    """A server that holds its port (0: a free one) and answers nothing yet; also the port.

    max_message_bytes: of a request or an answer. max_connection_age_s: after about so long (gRPC varies it by a tenth)
    a client is asked to connect anew, and so looks its name up and finds new replicas; 0: never. Its calls in flight
    go on over the old connection, for max_connection_age_grace_s at most.

    Raises PortInUseError, AddressUnusableError.
    """
    options = [
        # Two servers on one port would each get a part of the calls, and neither would say so.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Notice callers that vanished, and let callers notice us.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),  # else a minute
        ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_INTERVAL_MS),  # else five minutes
    ]
    if max_connection_age_s:
        options += [
            ("grpc.max_connection_age_ms", round(1e3 * max_connection_age_s)),
            ("grpc.max_connection_age_grace_ms", round(1e3 * max_connection_age_grace_s)),
        ]
    server = aio.server(options=options)
    address = address_of(host, port)
    _probe(host, port)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortInUseError(address) from error
    if bound == 0:
        raise PortInUseError(address)
    return server, bound


def _probe(host: str, port: int) -> None:
    """See that a socket can have the address: gRPC does not tell why it cannot. Raises as bind()."""
    address = address_of(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that no name can have
        raise AddressUnusableError(address, getattr(error, "strerror", None) or str(error)) from error
    problem: OSError | None = None
    usable = False
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC: closed connections do not count
                probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUseError(address) from error
            problem = error
        else:
            usable = True
    if not usable:  # gRPC is content with one of several
        raise AddressUnusableError(address, (problem and problem.strerror) or "no address") from problem


def address_of(host: str, port: int) -> str:
    """Join host and port; an IPv6 host goes into brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_address(host: str, port: int) -> str:
    """Where a process on this machine reaches a server that listens on `host`, which may mean every address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return address_of(host, port)
    if not address.is_unspecified:
        return address_of(host, port)
    return address_of("127.0.0.1" if address.version == 4 else "::1", port)
