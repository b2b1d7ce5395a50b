"""How many cores a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nearshore.embedding import usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has eight cores, all of them allowed."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_the_quota_of_a_container_counts(tmp_path: Path, quota: str, cores: int) -> None:
    """A cgroup v2 quota is rounded down, but never to none."""
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", quota + "\n")
    assert usable_cores(tmp_path) == cores


def test_a_quota_further_up_counts(tmp_path: Path) -> None:
    """The tightest quota on the way to the root is the one that throttles."""
    write(tmp_path / "proc/self/cgroup", "0::/kubepods/pod1/main\n")
    write(tmp_path / "sys/fs/cgroup/kubepods/pod1/main/cpu.max", "max 100000\n")
    write(tmp_path / "sys/fs/cgroup/kubepods/pod1/cpu.max", "300000 100000\n")
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(("quota_us", "cores"), [("-1", 8), ("400000", 4)])
def test_the_older_cgroups_count_too(tmp_path: Path, quota_us: str, cores: int) -> None:
    """In cgroup v1 two files hold the quota, -1 for none; the path in proc may not exist in a container."""
    write(tmp_path / "proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota_us)
    write(tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert usable_cores(tmp_path) == cores


def test_affinity_counts_where_there_are_no_cgroups(tmp_path: Path) -> None:
    """Without cgroups the cores that the process is pinned to are the answer."""
    assert usable_cores(tmp_path) == 8
