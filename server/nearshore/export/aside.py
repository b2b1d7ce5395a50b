"""Writes a folder aside and renames it when it is whole, so that nobody ever finds half of one.

Where the folder's name is a link, the folder that it leads to is written so, beside itself, and the link stays.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nearshore.export.errors import LostLinkError


@contextmanager
def written_aside(final: Path) -> Iterator[Path]:
    """Give an empty folder to fill; at the end of the block it becomes `final`: see exclusive and replaced."""
    with exclusive(final), replaced(final) as staging:
        yield staging


@contextmanager
def exclusive(final: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let one writer of `final` at a time into the block, in whatever process; on_wait: called if it has to wait.

    What a killed writer left is mended first: the old folder is put back, what was written aside is removed. Raises
    LostLinkError for a link to what is not there.
    """
    link, final = final, _followed(final)
    if link.is_symlink() and not final.parent.exists():
        raise LostLinkError(link)
    final.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(_locked(final.parent / f".{final.name}.lock", on_wait))
        except PermissionError as error:
            if link.is_symlink() and not final.exists():
                raise LostLinkError(link) from error
            raise
        staging, old = _beside(final)
        if old.exists() and not final.exists():
            old.rename(final)
        old.unlink() if old.is_symlink() else shutil.rmtree(old, ignore_errors=True)  # releases before left links
        shutil.rmtree(staging, ignore_errors=True)
        if link.is_symlink() and not final.exists():  # looked at under the lock: an exchange has such a moment
            raise LostLinkError(link)
        yield


@contextmanager
def replaced(final: Path) -> Iterator[Path]:
    """Give an empty folder to fill; at the end of the block it takes the place of `final`. For a block of exclusive.

    When the block raises, or the process dies in it, `final` is as it was; at no moment is it half of one. Between two
    renames it is not there; a writer that is killed at that moment leaves the old one hidden.
    """
    final = _followed(final)
    staging, old = _beside(final)
    staging.mkdir()
    try:
        yield staging
        _flush(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    if final.exists():
        final.rename(old)
    staging.rename(final)
    _flush_one(final.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of that name. The file goes with the block; what a killed process left of it means nothing."""
    waited = False
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    on_wait()
                waited = True
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(path, lock.fileno()):
                continue  # who held it has deleted it since it was opened here, and others may lock another by now
            try:
                yield
            finally:
                with suppress(OSError):
                    path.unlink()  # while it is held: nobody else deletes it, nor takes it for the lock afterwards
            return


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one of that name."""
    opened = os.fstat(descriptor)
    try:
        return opened.st_nlink > 0 and os.path.samestat(opened, path.stat())
    except FileNotFoundError:
        return False


def _followed(final: Path) -> Path:
    return Path(os.path.realpath(final))  # which raises for no loop, unlike Path.resolve


def _beside(final: Path) -> tuple[Path, Path]:
    """Where a folder is written, and where the one that it replaces lies meanwhile."""
    return final.parent / f".{final.name}.new", final.parent / f".{final.name}.old"


def _flush(folder: Path) -> None:
    """To the disk with all of it: a rename may otherwise survive a power cut that its files do not."""
    for path in (*folder.rglob("*"), folder):
        _flush_one(path)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
