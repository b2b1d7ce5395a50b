"""Where the server is."""

from __future__ import annotations

import time

from nearshore.cli.session import session
from nearshore.client import Client, Retries
from nearshore.client.address import checked
from nearshore.errors import UnavailableError
from nearshore.store.lock import read_holder

INT32 = (1 << 31) - 1  # the largest number that a request can say
PATIENCE_S = 5.0  # with a server that restarts or loads; one that is not there at all is told after a second
_PAUSE_S = 0.1


class FolderNotServedError(UnavailableError):
    """No server has the data folder."""

    reason = "FOLDER_NOT_SERVED"

    def __init__(self, folder: str) -> None:
        """folder: as the settings give it."""
        super().__init__(
            f"No nearshore server serves the data folder {folder}.",
            "Start one with `nearshore serve`, name its folder with --data-dir, or its address with --server.",
            data_dir=folder,
        )


class FolderNotServedYetError(UnavailableError):
    """A process has the data folder open, and takes no calls."""

    reason = "FOLDER_NOT_SERVED_YET"

    def __init__(self, folder: str, pid: int) -> None:
        """folder: as the settings give it; pid: who has it open, 0 if unknown."""
        super().__init__(
            f"Process {pid or 'unknown'} has the data folder {folder} open and does not serve it (yet).",
            "Wait until that server serves, as its log tells, or until that `nearshore index` has ended; then run the "
            "command again.",
            data_dir=folder,
            pid=pid,
        )


def serving_address() -> str:
    """The server that must be used: --server, or whoever serves the data folder; empty if nobody has that open.

    A process that has it open may be about to serve it: it is given PATIENCE_S. Raises InvalidAddressError, and
    FolderNotServedYetError when it does not serve by then.
    """
    server = session().server
    if server is not None:
        return checked(server)
    folder, give_up = session().settings.data_dir, time.monotonic() + PATIENCE_S
    while (holder := read_holder(folder)) is not None and not holder.address and time.monotonic() < give_up:
        time.sleep(_PAUSE_S)
    if holder is not None and not holder.address:
        raise FolderNotServedYetError(str(folder), holder.pid)
    return holder.address if holder is not None else ""


def target() -> str:
    """serving_address(). Raises FolderNotServedError where nobody has the data folder open.

    A server that happens to listen where the settings would have one listen serves another folder: what is meant for
    this one must not be written, or deleted, there.
    """
    address = serving_address()
    if not address:
        raise FolderNotServedError(str(session().settings.data_dir))
    return address


def default_model(client: Client) -> str:
    """The model that the server uses where none is named."""
    return client.tokenize([""]).model


def connect() -> Client:
    """A client of the server at target(); somebody waits for what it says."""
    return Client(target(), retries=Retries(away_s=PATIENCE_S))
