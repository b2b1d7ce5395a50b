"""Writes a folder aside and renames it when it is whole, so that nobody ever finds half of one."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(final: Path) -> Iterator[Path]:
    """Give an empty folder to fill; at the end of the block it becomes `final`, replacing what was there.

    When the block raises, or the process dies in it, `final` is as it was; at no moment is it half of one. Between two
    renames it is not there; a writer that is killed at that moment leaves the old one hidden, and the next writer puts
    it back first. One writer at a time: another waits. What else a killed one left is removed by the next.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    with (final.parent / f".{final.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        staging, replaced = final.parent / f".{final.name}.new", final.parent / f".{final.name}.old"
        if replaced.exists() and not final.exists():
            replaced.rename(final)
        for leftover in (staging, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            _flush(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if final.exists():
            final.rename(replaced)
        staging.rename(final)
        _flush_one(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)


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
