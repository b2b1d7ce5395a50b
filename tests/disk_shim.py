"""The order of writes, syncs and acknowledgements: what a preloaded shim notes of one or several processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


def environment(**extra: str) -> dict[str, str]:
    """Enough for a child to import the package and the tests' helpers."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **extra}


def compile_shim(folder: Path) -> Path:
    """Compile the shim into folder."""
    assert COMPILER is not None
    library = folder / "disk_shim.so"
    source = Path(__file__).with_name("disk_shim.c")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def unsynced_acknowledgements(events: Sequence[str]) -> list[int]:
    """The acknowledgements, by number from 0, before which the log had not been written and then synced."""
    violations: list[int] = []
    written = synced = False
    count = 0
    for event in events:
        if event.endswith("stdout"):
            if not (written and synced):
                violations.append(count)
            written = synced = False
            count += 1
        elif event.startswith("write"):
            written, synced = True, False
        else:
            synced = written
    assert count == 102, f"{count} acknowledgements in the trace"
    return violations
