"""Replicas by load, and what a new replica gets to do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.kube import Kube, wait
from tests.cluster.loads import end_load, start_load
from tests.cluster.releases import SMALL, Release

SHARE_WITHIN_S = 30.0
WINDOW_S = 5.0
EVERYTHING_PER_S = 2_000.0  # more than any machine answers
LOW, HIGH = 2, 4


def test_a_new_replica_soon_takes_its_share(release: Release) -> None:
    """Of the calls of clients that were connected before: at least half of 1/N within 30 s of being ready."""
    kube = release.kube
    before = set(release.scale(LOW))
    pod = start_load(release)
    names = release.scale(LOW + 1)
    (new,) = set(names) - before
    ready_at = kube.ready_at(new)
    shares = list(_shares(kube, names, new, ready_at))
    report = end_load(kube, pod)
    print(f"share of the new replica by seconds since it was ready: {shares}")
    assert max(share for at_s, share in shares if at_s <= SHARE_WITHIN_S) >= 0.5 / len(names)
    assert report["failed"] == 0


def _shares(kube: Kube, names: list[str], new: str, ready_at: float) -> Iterator[tuple[float, float]]:
    """The new replica's share of the calls in windows that follow one another, with the time at which each ended."""
    counts = {name: kube.calls_of(name) for name in names}
    while time.time() - ready_at < SHARE_WITHIN_S - WINDOW_S:
        time.sleep(WINDOW_S)
        now = {name: kube.calls_of(name) for name in names}
        made = {name: now[name] - counts[name] for name in names}
        counts = now
        yield round(time.time() - ready_at, 1), round(made[new] / max(sum(made.values()), 1), 3)


@pytest.fixture
def other(release: Release) -> Iterator[Release]:
    """Another release over the same PostgreSQL, with as few replicas as an autoscaler would leave it."""
    installed = Release(release.kube, release.images, name="auto-nearshore")
    installed.install({**SMALL, "image.tag": release.images.first, "replicas": str(LOW)})
    yield installed
    installed.kube.helm("uninstall", installed.name, "--wait")


@pytest.fixture
def autoscaled(other: Release) -> Release:
    """The same, whose replicas an autoscaler counts."""
    other.upgrade(
        autoscaling__enabled="true",
        autoscaling__minReplicas=str(LOW),
        autoscaling__maxReplicas=str(HIGH),
        autoscaling__scaleDownStabilizationSeconds="15",
    )
    return other


@contextmanager
def wanted_replicas(release: Release) -> Iterator[list[int]]:
    """Every number of replicas that the Deployment asks for during the block; complete at its end."""
    path = "jsonpath={.spec.replicas}{'\\n'}"
    place = ["--namespace", release.kube.namespace, "get", "deployment", release.name]
    watch = subprocess.Popen(["kubectl", *place, "--watch", "--output", path], stdout=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    numbers = [int(watch.stdout.readline())]
    try:
        yield numbers
    finally:
        watch.terminate()
        numbers += map(int, watch.stdout.read().split())
        watch.wait()
        watch.stdout.close()


def test_turning_autoscaling_on_takes_no_replica_away(other: Release) -> None:
    """Not in the upgrade that turns it on, nor in the next one, be the number Helm's still or the autoscaler's."""
    kube = other.kube
    other.scale(HIGH - 1)
    bounds = {"autoscaling__minReplicas": str(HIGH - 1), "autoscaling__maxReplicas": str(HIGH)}
    with wanted_replicas(other) as numbers:
        other.upgrade(autoscaling__enabled="true", **bounds)
        other.upgrade(podDisruptionBudget__maxUnavailable="2")
        kube.kubectl("scale", "deployment", other.name, f"--replicas={HIGH}")  # as the autoscaler does under load
        other.upgrade(podDisruptionBudget__maxUnavailable="1")
    print(f"replicas wanted: {numbers}")
    assert min(numbers) == HIGH - 1
    assert max(numbers) == HIGH


def test_the_number_of_replicas_follows_the_load(autoscaled: Release) -> None:
    """Up while clients ask for all they can get, on the metrics of the cluster, and down again after them."""
    kube, selector = autoscaled.kube, autoscaled.selector
    kube.wait_ready(LOW, selector)
    pod = start_load(autoscaled, calls_per_s=EVERYTHING_PER_S)
    up_s = wait("more replicas under load", lambda: len(kube.ready_pods(selector)) > LOW, 300.0)
    most = len(kube.ready_pods(selector))
    report = end_load(kube, pod)
    down_s = wait("fewer replicas without load", lambda: len(kube.pods(selector)) == LOW, 600.0)
    told = f"{report['total']:,} calls, {report['calls_per_s']}/s, {report['failed']} failed"
    print(f"from {LOW} to {most} replicas {up_s:.0f} s after the load began, back {down_s:.0f} s after its end; {told}")
    assert (report["failed"], report["lost"]) == (0, [])
