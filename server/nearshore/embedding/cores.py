"""How many cores this process may use, which in a container is not how many the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Cores by CPU affinity and by the cgroup's CPU quota, rounded down but at least 1.

    Rounded down because a quota of 1.5 would throttle a second busy thread, and all threads with it, half of the time.
    root: where proc and sys are found.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas, in cores, of this process's cgroup and of all above it; cgroup v2 and v1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controllers and "cpu" not in controllers.split(","):
            continue
        if controllers:
            mount /= "cpu"
        group = mount / path.lstrip("/")
        while group.is_relative_to(mount):
            quota = _quota_of(group)
            if quota is not None:
                yield quota
            group = group.parent


def _quota_of(group: Path) -> float | None:
    """The quota of one cgroup in cores; None when it has none."""
    try:
        if (group / "cpu.max").exists():
            quota_us, period_us = (group / "cpu.max").read_text().split()
        else:
            quota_us = (group / "cpu.cfs_quota_us").read_text()
            period_us = (group / "cpu.cfs_period_us").read_text()
        cores = int(quota_us) / int(period_us)
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return cores if cores > 0 else None
