"""One process opens a data folder: an advisory lock on a file in it, which also says who holds it and where it serves.

The lock (flock) belongs to the open file, so it ends with the process however that ends; the file itself stays and
means nothing without the lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from nearshore.store.errors import DataFolderLockedError
from nearshore.store.schema import folder_error, make_folder

_FILE_NAME = "lock"
# read_holder takes the lock for an instant; whoever wants to hold it must not mistake that for an owner.
_ATTEMPTS = 20
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a data folder open."""

    pid: int  # 0: not written yet
    address: str  # host:port it serves at; empty before it serves, or when it does not


class FolderLock:
    """Holds a data folder until release() or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        """Use FolderLock.acquire."""
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, folder: Path) -> FolderLock:
        """Lock folder, creating it (mode 0700) as needed.

        Raises DataFolderLockedError naming the process that holds it, and what folder_error gives.
        """
        make_folder(folder)
        try:
            descriptor = os.open(folder / _FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise folder_error(folder, error, "locking") from error
        if not _try_lock(descriptor):
            holder = _read(descriptor)
            os.close(descriptor)
            raise DataFolderLockedError(str(folder), holder.pid, holder.address)
        lock = cls(descriptor)
        try:
            lock.publish("")
        except OSError as error:
            lock.release()
            raise folder_error(folder, error, "locking") from error
        return lock

    def publish(self, address: str) -> None:
        """Tell other processes that this one serves the folder at address (host:port)."""
        content = json.dumps({"pid": os.getpid(), "address": address}).encode()
        # One write, padded: a reader sees the old content or the new one, never their mixture.
        os.pwrite(self._descriptor, content.ljust(512), 0)

    def release(self) -> None:
        """Give the folder back. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_holder(folder: Path) -> Holder | None:
    """Who has folder open; None if nobody has."""
    try:
        descriptor = os.open(folder / _FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise folder_error(folder, error, "reading the lock of") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _read(descriptor: int) -> Holder:
    try:
        content = json.loads(os.pread(descriptor, 512, 0))
        return Holder(int(content["pid"]), str(content["address"]))
    except (ValueError, KeyError, TypeError):  # locked, but not yet written
        return Holder(0, "")
