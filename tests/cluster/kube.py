"""kubectl and helm in one namespace, as a person would use them; both must be on the PATH."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "nearshore"
PROGRAMS = Path(__file__).parent / "programs"
SERVER = "app.kubernetes.io/component=server"
POLL_S = 0.5
COMMAND_TIMEOUT_S = 120.0
ACCOUNT = 10_001  # of the image


class Kube:
    """One namespace."""

    def __init__(self, namespace: str) -> None:
        """namespace: its name."""
        self.namespace = namespace

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run kubectl; returns what it prints. Fails with its words."""
        return run(["kubectl", "--namespace", self.namespace, *arguments], stdin=stdin, timeout_s=timeout_s)

    def helm(self, *arguments: str, timeout_s: float = 900.0) -> str:
        """Run helm; returns what it prints. Fails with its words."""
        return run(["helm", "--namespace", self.namespace, *arguments], timeout_s=timeout_s)

    def get(self, *arguments: str) -> Any:
        """What `kubectl get` says, as JSON."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl(
            "apply", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def pods(self, selector: str = SERVER) -> list[dict[str, Any]]:
        """The pods with these labels that have not been told to end."""
        pods: list[dict[str, Any]] = self.get("pods", "--selector", selector)["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self, selector: str = SERVER) -> list[str]:
        """Names of those that are ready, in order."""
        return sorted(pod["metadata"]["name"] for pod in self.pods(selector) if is_ready(pod))

    def wait_ready(self, count: int, selector: str = SERVER, timeout_s: float = 300.0) -> list[str]:
        """Wait until exactly so many pods are there and ready; returns their names."""

        def settled() -> bool:
            return len(self.ready_pods(selector)) == len(self.pods(selector)) == count

        wait(f"{count} ready servers", settled, timeout_s)
        return self.ready_pods(selector)

    def ready_at(self, pod: str) -> float:
        """When a pod became ready, in seconds since the epoch."""
        conditions = self.get("pod", pod)["status"]["conditions"]
        (ready,) = (each for each in conditions if each["type"] == "Ready")
        return datetime.fromisoformat(ready["lastTransitionTime"]).timestamp()

    def write_program(self, name: str) -> None:
        """Put a program of this folder where pods can mount it."""
        text = (PROGRAMS / f"{name}.py").read_text()
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {f"{name}.py": text}})

    def start_program(
        self, name: str, image: str, *arguments: str, pod_name: str = "", claim: str = "", host_pid: bool = False
    ) -> str:
        """Run a program of this folder in a pod of the image; returns the pod's name.

        claim: mounted read-only at /sources. host_pid: whether it sees all processes of its node.
        """
        self.write_program(name)
        pod_name = pod_name or f"{name}-{uuid.uuid4().hex[:6]}"
        command = ["python", f"/program/{name}.py", *arguments]
        program = {"name": "program", "configMap": {"name": name}}
        pod = pod_of(pod_name, image, command, {"/program": program}, claim=claim)
        pod["spec"]["hostPID"] = host_pid
        self.apply(pod)
        return pod_name

    def finish_program(self, pod: str, timeout_s: float = 600.0) -> str:
        """Wait for the end of a program; returns its output, and fails with it when it failed."""
        phases = {"Succeeded", "Failed"}
        wait(f"the end of {pod}", lambda: self.get("pod", pod)["status"].get("phase") in phases, timeout_s)
        output = self.kubectl("logs", pod, "--tail", "-1")
        phase = self.get("pod", pod)["status"]["phase"]
        self.kubectl("delete", "pod", pod, "--wait=false")
        assert phase == "Succeeded", output[-4_000:]
        return output

    def calls_of(self, pod: str, port: int = 9464) -> float:
        """Calls of Embed, Search and UpsertDocuments that a server has answered, by its own metrics."""
        text = self.kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy/metrics")
        lines = [line for line in text.splitlines() if line.startswith("nearshore_calls_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if any(each in line for each in COUNTED))

    def describe(self) -> str:
        """All that helps to understand a failure here."""
        parts = [
            self._try("get", "all,pvc", "--output", "wide"),
            self._try("get", "events", "--sort-by", ".lastTimestamp"),
        ]
        with contextlib.suppress(AssertionError, KeyError):
            for pod in self.get("pods")["items"]:
                name = pod["metadata"]["name"]
                parts.append(f"--- {name}\n" + self._try("logs", name, "--all-containers", "--tail", "40"))
        return "\n".join(parts)

    def _try(self, *arguments: str) -> str:
        try:
            return self.kubectl(*arguments)
        except AssertionError as error:
            return str(error)


COUNTED = ("Embed", "Search", "UpsertDocuments")


def run(
    command: Sequence[str], *, stdin: str | None = None, timeout_s: float = COMMAND_TIMEOUT_S, code: int = 0
) -> str:
    """Run a command; returns its standard output. Fails with its words unless it ends with `code`."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert done.returncode == code, (
        f"{' '.join(command)[:400]}: {done.returncode}\n{done.stdout[-4_000:]}\n{done.stderr[-4_000:]}"
    )
    return done.stdout


def wait(what: str, condition: Callable[[], bool], timeout_s: float) -> float:
    """Wait until a condition of the cluster holds, or fail; returns for how long, in seconds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, f"no {what} within {timeout_s:.0f} s"
        time.sleep(POLL_S)
    return time.monotonic() - started


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether Kubernetes sends it calls."""
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def pod_of(
    name: str,
    image: str,
    command: Sequence[str],
    volumes: dict[str, dict[str, Any]],
    *,
    claim: str = "",
    write: bool = False,
) -> dict[str, Any]:
    """A pod that runs a command as the image's account; volumes by where they are mounted; claim at /sources."""
    volumes = {**volumes, "/tmp": {"name": "tmp", "emptyDir": {}}}
    if claim:
        volumes["/sources"] = {"name": "sources", "persistentVolumeClaim": {"claimName": claim, "readOnly": not write}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"nearshore-test": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": ACCOUNT, "runAsGroup": ACCOUNT, "fsGroup": ACCOUNT},
            "containers": [
                {
                    "name": "program",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(command),
                    "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
                    "volumeMounts": [{"name": volume["name"], "mountPath": path} for path, volume in volumes.items()],
                }
            ],
            "volumes": list(volumes.values()),
        },
    }


@contextlib.contextmanager
def namespace(kind: str) -> Iterator[Kube]:
    """A new namespace, deleted at the end with all that is in it."""
    kube = Kube(f"nearshore-test-{kind}-{uuid.uuid4().hex[:6]}")
    run(["kubectl", "create", "namespace", kube.namespace])
    OPEN.append(kube)
    try:
        yield kube
    finally:
        OPEN.remove(kube)
        run(["kubectl", "delete", "namespace", kube.namespace, "--wait=true", "--timeout=180s"], timeout_s=200.0)


OPEN: list[Kube] = []
"""Namespaces that are there now, for reports of failures."""
