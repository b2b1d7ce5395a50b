"""What can go wrong in the store and its folder."""

from __future__ import annotations

from nearshore.errors import CorruptionError, InvalidSettingsError, NearshoreError, OverloadedError, UnavailableError


class DataFolderLockedError(UnavailableError):
    """Another process has the data folder open."""

    reason = "DATA_FOLDER_LOCKED"

    def __init__(self, folder: str, pid: int, address: str) -> None:
        """folder: the data folder; pid: who holds it, 0 if unknown; address: where it serves, empty if unknown."""
        at = f", serving at {address}" if address else ""
        super().__init__(
            f"The data folder {folder} is in use by process {pid or 'unknown'}{at}.",
            "Talk to that server, stop it first, or choose another data_dir.",
            folder=folder,
            pid=pid,
            address=address,
        )


class DataFolderReadOnlyError(UnavailableError):
    """The data folder cannot be written."""

    reason = "DATA_FOLDER_READ_ONLY"
    _remedy = "Make it writable for the user that runs nearshore"

    def __init__(self, folder: str, detail: str, remedy: str = _remedy) -> None:
        """folder: the data folder; detail: what the system said; remedy: beside choosing another folder."""
        super().__init__(
            f"The data folder {folder} cannot be written: {detail}.",
            f"{remedy}, or choose another data_dir.",
            folder=folder,
        )


class StoreUnavailableError(UnavailableError):
    """The store does not answer right now, or is closed."""

    reason = "STORE_UNAVAILABLE"


class StoreCorruptError(CorruptionError):
    """The store's file is damaged."""

    reason = "STORE_CORRUPT"


class StoreFormatError(UnavailableError):
    """The store file is whole, but not one that this version reads."""

    reason = "STORE_FORMAT"


class StoreOverloadedError(OverloadedError):
    """The store's queue of writes is full."""

    reason = "STORE_OVERLOADED"

    def __init__(self, max_queued_bytes: int) -> None:
        """max_queued_bytes: the size of the queue."""
        super().__init__(
            f"More than {max_queued_bytes} bytes are waiting to be written.",
            "Retry later with back-off, or raise store.max_queued_bytes if memory allows.",
        )


class StoreLockedError(StoreUnavailableError):
    """Another session of the database holds what a write needs."""

    reason = "STORE_LOCKED"


class StoreFailedError(UnavailableError):
    """The database met an error that this release knows no advice for."""

    reason = "STORE_FAILED"


class StoreUrlError(InvalidSettingsError):
    """store.url cannot be used as it is."""

    reason = "STORE_URL"


def closed() -> StoreUnavailableError:
    """The store was closed."""
    return StoreUnavailableError(
        "The store is closed.", "The server is stopping: retry against another or after restart."
    )


def dead() -> StoreUnavailableError:
    """The thread that writes has ended by a bug, and the process is about to."""
    return StoreUnavailableError(
        "The store's writer has died.", "The server is ending: retry after its restart; its log tells why."
    )


def mistaken() -> NearshoreError:
    """A bug left a caller without an answer."""
    return NearshoreError("The store made a mistake.", "Please report this.")
