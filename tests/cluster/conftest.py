"""What tests on a real cluster share: its images, and one release over a PostgreSQL.

KUBECONFIG names the cluster; kubectl and helm are on the PATH. NEARSHORE_TEST_IMAGE_COMMAND builds an image and gives
it to the cluster; {context}, {tag} and {args} (build arguments) stand in it: "build-and-load {context} {tag} {args}".
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster.kube import OPEN, ROOT, namespace
from tests.cluster.releases import (
    IMAGE_COMMAND,
    POSTGRES_IMAGE,
    SMALL,
    Images,
    Release,
    build,
)


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    """There is a cluster to test on, and a way to give it images; else the run ends here and says what it needs."""
    missing = [f"{program} on the PATH" for program in ("kubectl", "helm") if shutil.which(program) is None]
    if "KUBECONFIG" not in os.environ:
        missing.append("KUBECONFIG, which names the cluster")
    if IMAGE_COMMAND not in os.environ:
        example = "build-and-load {context} {tag} {args}"
        missing.append(f"{IMAGE_COMMAND}, which builds an image and gives it to the cluster, as in {example!r}")
    if missing:
        pytest.exit(f"make test-cluster needs {'; '.join(missing)}.", returncode=2)


@pytest.fixture(scope="session")
def images(cluster: None) -> Images:
    """The image of this checkout, twice: the second differs by a label."""
    made = Images("test-1", "test-2")
    build(ROOT, made.reference(made.first), "--label", "nearshore.test=1")
    build(ROOT, made.reference(made.second), "--label", "nearshore.test=2")
    return made


@pytest.fixture(scope="session")
def release(images: Images) -> Iterator[Release]:
    """Three replicas over the example PostgreSQL of k8s/."""
    build(Path(__file__).parent / "postgres", POSTGRES_IMAGE)
    with namespace("cluster") as kube:
        manifest = (ROOT / "k8s" / "postgres.yaml").read_text()
        kube.kubectl(
            "apply", "--filename", "-", stdin=manifest.replace("image: postgres:17", f"image: {POSTGRES_IMAGE}")
        )
        kube.kubectl("rollout", "status", "statefulset/nearshore-postgres", "--timeout=180s", timeout_s=200.0)
        installed = Release(kube, images)
        installed.install({**SMALL, "image.tag": images.first})
        kube.wait_ready(3)
        yield installed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the cluster says, while its namespaces are still there."""
    report = yield
    if call.excinfo is not None and call.when != "teardown":
        for kube in OPEN:
            report.sections.append((f"namespace {kube.namespace}", kube.describe()))
    return report
