"""Steady load through the shipped client while everything that ends pods happens."""

from __future__ import annotations

import json

from tests.cluster.kube import Kube, wait
from tests.cluster.loads import end_load, logs, start_load
from tests.cluster.releases import Release

LEAST_CALLS_PER_S = 30.0


def delete_each_pod(kube: Kube) -> None:
    """One after the other, waiting each time until the others are complete again."""
    names = kube.ready_pods()
    for name in names:
        kube.kubectl("delete", "pod", name, "--wait=true", timeout_s=180.0)
        kube.wait_ready(len(names))


def kill_one_server(release: Release) -> None:
    """SIGKILL; Kubernetes starts the container again."""
    kube = release.kube
    name = kube.ready_pods()[0]
    image = release.images.reference(release.images.first)
    kube.finish_program(kube.start_program("kill", image, name, host_pid=True))

    def restarted() -> bool:
        containers = kube.get("pod", name)["status"]["containerStatuses"]
        return any(each["restartCount"] > 0 and each["ready"] for each in containers)

    wait(f"the restart of {name}", restarted, 180.0)


def test_no_call_fails_and_no_write_is_lost(release: Release) -> None:
    """Upgrade of image and settings, rollback, each pod deleted, a server killed, scaling: nobody notices."""
    kube = release.kube
    pod = start_load(release)
    made: dict[str, int] = {}

    def note(step: str) -> None:
        made[step] = logs(kube, pod).count('"failure"')

    release.upgrade(image__tag=release.images.second, config__index__ef_search="200")
    note("helm upgrade")
    assert release.images.second in {each["spec"]["containers"][0]["image"].rpartition(":")[2] for each in kube.pods()}
    kube.helm("rollback", release.name, "--wait", "--timeout", "10m")
    kube.wait_ready(3)
    note("helm rollback")
    delete_each_pod(kube)
    note("each pod deleted")
    kill_one_server(release)
    note("SIGKILL")
    for replicas in (2, 4, 2):
        release.scale(replicas)
    note("scaling 2, 4, 2")
    report = end_load(kube, pod)
    print(f"failures after each step: {made}; {json.dumps(report)}")
    assert (report["failed"], report["lost"]) == (0, [])
    assert report["written_ids"] > 0
    assert report["calls_per_s"] >= LEAST_CALLS_PER_S
