"""The load that runs in a pod while things happen to the servers; programs/load.py says what it does."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.kube import Kube, wait
from tests.cluster.releases import Release

CALLS_PER_S = 40.0


def start_load(release: Release, *, calls_per_s: float = CALLS_PER_S) -> str:
    """Start the load; returns its pod once calls are made."""
    image = release.images.reference(release.images.first)
    pod = release.kube.start_program("load", image, release.target, "load", str(calls_per_s))
    wait("calls of the load", lambda: "started" in logs(release.kube, pod), 120.0)
    return pod


def logs(kube: Kube, pod: str) -> str:
    """What a pod has said so far; nothing while it starts."""
    try:
        return kube.kubectl("logs", pod)
    except AssertionError:
        return ""


def end_load(kube: Kube, pod: str) -> dict[str, Any]:
    """End the load; returns its report."""
    kube.kubectl("exec", pod, "--", "sh", "-c", "kill -TERM 1")
    report: dict[str, Any] = json.loads(kube.finish_program(pod).splitlines()[-1])
    return report
