"""A kill leaves the page cache, so only the system calls show that what was acknowledged had reached the disk.

A preloaded shim (or strace, where there is no C compiler) writes down writes, syncs and acknowledgements in order.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.disk_shim import compile_shim, environment, needs_compiler, unsynced_acknowledgements

STRACE = shutil.which("strace")

ACKNOWLEDGE = """
import os, sys
from pathlib import Path
from nearshore.records import Delete
from nearshore.store import schema
schema.SYNCHRONOUS = sys.argv[2]
from tests.stores import SPEC, SqliteFactory, upsert
store = SqliteFactory(Path(sys.argv[1])).open()
id = store.create_collection(SPEC).id
os.write(1, b"created\\n")
for number in range(100):
    store.write(id, [upsert(str(number)), Delete(str(number - 2))], str(number)).result()
    os.write(1, b"acknowledged\\n")
store.prune(id, -1.0)
os.write(1, b"pruned\\n")
os._exit(0)
"""
FAIL = """
import sys
from pathlib import Path
from nearshore.errors import NearshoreError
from tests.stores import SPEC, SqliteFactory, upsert, walk
from nearshore.store import failures
factory, flag = SqliteFactory(Path(sys.argv[1])), Path(sys.argv[2])
failures.FULL_BELOW_BYTES = 1 << 62
store = factory.open()
id = store.create_collection(SPEC).id
store.write(id, [upsert("before")]).result()
flag.touch()
for number in range(3):
    error = store.write(id, [upsert(f"refused {number}", "x" * 100_000)], "request").exception()
    assert isinstance(error, NearshoreError), error
    print(error.reason)
try:
    store.create_collection(__import__("dataclasses").replace(SPEC, name="refused"))
except NearshoreError as error:
    print(error.reason)
assert set(store.get_items(id, ["before", "refused 0"])) == {"before"}
flag.unlink()
position = store.write(id, [upsert("after")], "request").result().commit.position
assert position == 2, position
store.close()
store = factory.open()
assert [item.id for item in walk(store, id)[0]] == ["before", "after"]
assert len(store.list_collections()) == 1
store.close()
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    return compile_shim(tmp_path_factory.mktemp("shim"))


def trace_by_shim(folder: Path, synchronous: str, shim: Path) -> list[str]:
    """Events ("write PATH", "sync PATH") of the write-ahead log and of standard output."""
    log = folder / "trace"
    subprocess.run(
        [sys.executable, "-c", ACKNOWLEDGE, folder, synchronous],
        check=True,
        env=environment(LD_PRELOAD=str(shim), SHIM_LOG=str(log)),
        stdout=subprocess.DEVNULL,
    )
    return [line for line in log.read_text().splitlines() if line.endswith(("-wal", "stdout"))]


def trace_by_strace(folder: Path, synchronous: str) -> list[str]:
    """The same events from strace."""
    log = folder / "trace"
    calls = "trace=write,pwrite64,fsync,fdatasync"
    command = ["strace", "-f", "-y", "-e", calls, "-e", "signal=none", "-s", "0", "-o", str(log)]
    with (folder / "stdout").open("w") as output:
        child = [sys.executable, "-c", ACKNOWLEDGE, str(folder), synchronous]
        subprocess.run([*command, *child], check=True, env=environment(), stdout=output)
    events = []
    for line in log.read_text().splitlines():
        called = re.search(r"(write|sync)(?:64)?\(\d+<(.*?)>", line)
        if called and called[2].endswith(("-wal", "stdout")):
            events.append(f"{called[1]} {'stdout' if called[2].endswith('stdout') else called[2]}")
    return events


@needs_compiler
def test_every_acknowledgement_comes_after_a_sync(tmp_path: Path, shim: Path) -> None:
    """Creations, writes and prunes are answered only after the log was synced."""
    assert unsynced_acknowledgements(trace_by_shim(tmp_path, "FULL", shim)) == []


@needs_compiler
@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_the_trace_shows_missing_syncs(tmp_path: Path, shim: Path, synchronous: str) -> None:
    """With a weaker synchronous the same check reports unsynced acknowledgements: it would notice a change."""
    assert len(unsynced_acknowledgements(trace_by_shim(tmp_path, synchronous, shim))) > 90


@pytest.mark.skipif(STRACE is None, reason="needs strace; the shim checks the same where there is a C compiler")
def test_strace_sees_the_same(tmp_path: Path) -> None:
    """The kernel's view agrees: synced with FULL, not with OFF."""
    probe = subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("strace may not trace here: " + probe.stderr.decode(errors="replace").strip()[:200])
    for synchronous in ("FULL", "OFF"):
        (tmp_path / synchronous).mkdir()
    assert unsynced_acknowledgements(trace_by_strace(tmp_path / "FULL", "FULL")) == []
    assert len(unsynced_acknowledgements(trace_by_strace(tmp_path / "OFF", "OFF"))) > 90


@needs_compiler
@pytest.mark.parametrize(
    ("variable", "reason"), [("SHIM_FULL", "STORAGE_FULL"), ("SHIM_NO_SYNC", "COMMIT_OUTCOME_UNKNOWN")]
)
def test_a_failing_commit_is_told_and_outlived(tmp_path: Path, shim: Path, variable: str, reason: str) -> None:
    """With a full disk or a failing sync writes are refused with the reason, reads go on, later writes hold.

    A failing sync is not taken for a full disk, however little space is free.
    """
    flag = tmp_path / "flag"
    child = subprocess.run(
        [sys.executable, "-c", FAIL, tmp_path, flag],
        check=False,
        capture_output=True,
        text=True,
        env=environment(LD_PRELOAD=str(shim), **{variable: str(flag)}),
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == [reason] * 4
