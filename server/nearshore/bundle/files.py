"""Reads files by their names, and waits for none: a pipe in place of one would keep its reader waiting for ever."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

# Of a file that is read at once: after each part a thread waits for the interpreter, 5 ms where another one imports.
_PART_BYTES = 4 << 20


class NotRegularFileError(OSError):
    """A folder, pipe, socket or device has the name of a file."""

    def __init__(self, path: str) -> None:
        """path: as it was to be opened."""
        super().__init__(errno.EINVAL, "it is not a regular file", path)


def read_file(path: Path) -> bytes:
    """All of a file. Raises OSError, of which NotRegularFileError is one."""
    with open(path, "rb", opener=_open_regular) as file:
        return file.read()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises what read_file does."""
    digest, part = hashlib.sha256(), memoryview(bytearray(_PART_BYTES))
    with open(path, "rb", buffering=0, opener=_open_regular) as file:
        while count := file.readinto(part):
            digest.update(part[:count])
    return digest.hexdigest()


def _open_regular(path: str, flags: int) -> int:
    # Looked at once it is open, so that nothing takes its place between; a pipe does not keep this waiting.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularFileError(path)
    return descriptor
