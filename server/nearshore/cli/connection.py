"""Where the server is."""

from __future__ import annotations

from nearshore.cli.session import session
from nearshore.client import Client, Retries, ServerUnreachableError
from nearshore.client.address import checked
from nearshore.store.lock import read_holder

PATIENCE_S = 5.0  # with a server that restarts or loads; one that is not there at all is told after a second
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 -- not bound here


def serving_address() -> str:
    """The server that must be used: --server, or whoever serves the data folder; empty if neither is there.

    Raises InvalidAddressError.
    """
    server = session().server
    if server is not None:
        return checked(server)
    holder = read_holder(session().settings.data_dir)
    return holder.address if holder is not None else ""


def target() -> str:
    """Where to look for a server: serving_address(), else where the settings would make one listen."""
    if address := serving_address():
        return address
    server = session().settings.server
    host = _REACHED_AT.get(server.host, server.host)
    address = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    if server.port == 0:
        raise ServerUnreachableError(
            address, f"port 0 is any free one, and no server has {session().settings.data_dir}"
        )
    return address


def default_model(client: Client) -> str:
    """The model that the server uses where none is named."""
    return client.tokenize([""]).model


def connect() -> Client:
    """A client of the server at target(); somebody waits for what it says."""
    return Client(target(), retries=Retries(away_s=PATIENCE_S))
