"""Images of this checkout for the cluster, and releases of the chart that use them."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.kube import CHART, SERVER, Kube, run

IMAGE_COMMAND = "NEARSHORE_TEST_IMAGE_COMMAND"
REPOSITORY = "localhost/nearshore-test"
POSTGRES_IMAGE = "localhost/nearshore-test-postgres:1"
BUILD_S = 1_800.0
RELEASE = "nearshore"
# Pods that also fit a small machine; one thread each for the model, so that replicas share its cores.
SMALL = {
    "resources.requests.cpu": "100m",
    "resources.requests.memory": "512Mi",
    "indexJob.resources.requests.cpu": "100m",
    "indexJob.resources.requests.memory": "512Mi",
    "config.embedding.workers": "1",
    "server.minReadySeconds": "3",
}


@dataclass(frozen=True, slots=True)
class Images:
    """Two images of this checkout under two tags, as two releases would have them."""

    first: str
    second: str

    def reference(self, tag: str) -> str:
        """Repository and tag."""
        return f"{REPOSITORY}:{tag}"


@dataclass(frozen=True, slots=True)
class Release:
    """The chart installed over a PostgreSQL."""

    kube: Kube
    images: Images
    name: str = RELEASE

    @property
    def target(self) -> str:
        """For clients that balance."""
        return f"dns:///{self.name}-headless:50051"

    def install(self, values: dict[str, str]) -> None:
        """`helm install` in the cluster shape with these values, and wait until it is through."""
        base = ["--values", str(CHART / "values-cluster.yaml"), *sets({"image.repository": REPOSITORY, **values})]
        self.kube.helm("install", self.name, str(CHART), *base, "--wait", "--timeout", "5m")

    def upgrade(self, **values: str) -> None:
        """`helm upgrade` with these values changed, and wait until it is through."""
        wanted = ["--reuse-values", *sets(values), "--wait", "--timeout", "10m"]
        self.kube.helm("upgrade", self.name, str(CHART), *wanted)

    def scale(self, replicas: int) -> list[str]:
        """Change the number of replicas, and wait until it is so; returns their pods."""
        self.upgrade(replicas=str(replicas))
        return self.kube.wait_ready(replicas, self.selector)

    @property
    def selector(self) -> str:
        """The labels of its servers."""
        return f"{SERVER},app.kubernetes.io/instance={self.name}"


def sets(values: dict[str, str]) -> list[str]:
    """Values as options of helm; "__" stands for the dot."""
    return [part for name, value in values.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


def build(context: Path, tag: str, *arguments: str) -> None:
    """Build an image and give it to the cluster."""
    command: list[str] = []
    for part in shlex.split(os.environ[IMAGE_COMMAND]):
        if part == "{args}":
            command += arguments
        else:
            command.append(part.replace("{context}", str(context)).replace("{tag}", tag))
    run(command, timeout_s=BUILD_S)
