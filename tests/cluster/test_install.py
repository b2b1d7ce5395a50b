"""What `helm install` gives, and `nearshore index --kubernetes` after it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nearshore.cli import stdlib_corpus
from nearshore.exit_codes import ExitCode
from tests.cluster.kube import CHART, ROOT, Kube, namespace, pod_of
from tests.cluster.releases import RELEASE, REPOSITORY, Images, Release

READY_S = 60
DOCUMENTS = 20_000
CORPUS = "NEARSHORE_TEST_DATA"
CLAIM = "corpus"
NEARSHORE = (sys.executable, "-m", "nearshore")


def test_default_values_are_ready_within_a_minute(images: Images) -> None:
    """`helm install` needs nothing but the image, and `helm test` writes, finds and deletes a document."""
    with namespace("default") as kube:
        started = time.monotonic()
        image = ["--set", f"image.repository={REPOSITORY}", "--set", f"image.tag={images.first}"]
        kube.helm("install", RELEASE, str(CHART), *image, "--wait", "--timeout", f"{READY_S}s")
        ready_s = time.monotonic() - started
        kube.helm("test", RELEASE, "--timeout", "2m")
        print(f"helm install with default values: ready after {ready_s:.1f} s; helm test passed")
        assert ready_s <= READY_S


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real passages as JSON lines: of NEARSHORE_TEST_DATA, else the documentation of the standard library."""
    file = tmp_path_factory.mktemp("corpus") / "passages.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in _passages())
    return file


def _passages() -> Iterator[dict[str, Any]]:
    if CORPUS in os.environ:
        from benchmarks.corpora import passages  # noqa: PLC0415 -- needs the corpora

        return itertools.islice(passages(step=10), DOCUMENTS)
    told = subprocess.run([sys.executable, "-m", stdlib_corpus.__name__], capture_output=True, text=True, check=True)
    return map(json.loads, told.stdout.splitlines())


def fill_claim(kube: Kube, image: str, file: Path) -> None:
    """Put a file onto a new PersistentVolumeClaim, as one would by hand."""
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    )
    kube.apply(pod_of("fill", image, ["sleep", "600"], {}, claim=CLAIM, write=True))
    kube.kubectl("wait", "pod/fill", "--for=condition=Ready", "--timeout=120s", timeout_s=130.0)
    write = ["exec", "--stdin", "fill", "--", "sh", "-c", f"cat >/sources/{file.name}"]
    kube.kubectl(*write, stdin=file.read_text(encoding="utf-8"))
    kube.kubectl("delete", "pod", "fill", "--wait=true")


def index(kube: Kube, *arguments: str) -> dict[str, Any]:
    """Run `nearshore index --kubernetes` on this machine; returns the verdict that it prints."""
    place = ("--namespace", kube.namespace, "--release", RELEASE)
    command = [*NEARSHORE, "--json", "index", "--kubernetes", *place, *arguments]
    path = os.pathsep.join((str(ROOT / "server"), str(ROOT / "indexer")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEARSHORE_")}
    done = subprocess.run(
        command, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=1_500
    )
    assert done.returncode == ExitCode.OK, done.stderr[-6_000:]
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def test_a_job_of_four_shards_is_found_from_every_replica(release: Release, corpus: Path) -> None:
    """Each passage is indexed once, and every replica has and finds it; a second run embeds nothing."""
    kube, count = release.kube, len(corpus.read_text(encoding="utf-8").splitlines())
    image = release.images.reference(release.images.first)
    fill_claim(kube, image, corpus)
    arguments = ("--shards", "4", "--claim", CLAIM, "--collection", "passages", corpus.name)
    verdict = index(kube, *arguments)
    assert (verdict["verdict"], verdict["done"], verdict["documents"], verdict["rejected"]) == (
        "succeeded",
        4,
        count,
        0,
    )
    found = kube.start_program(
        "found", image, f"{release.name}-headless", "passages", f"/sources/{corpus.name}", claim=CLAIM
    )
    told = [json.loads(line) for line in kube.finish_program(found).splitlines()]
    assert [each["count"] for each in told] == [count] * 3
    again = index(kube, *arguments)
    assert (again["documents"], again["embedded"], again["unchanged"]) == (count, 0, count)
    seconds = f"{verdict['elapsed_s']:.0f} s, again {again['elapsed_s']:.0f} s"
    print(f"{count:,} passages, four shards: {seconds}; found from every replica: {told}")


def test_helm_test_passes_over_postgresql(release: Release) -> None:
    """Through the Service and through the headless one."""
    release.kube.helm("test", release.name, "--timeout", "2m")
