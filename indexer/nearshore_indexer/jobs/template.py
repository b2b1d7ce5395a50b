"""Fills in the Job template of the chart. A pure function of what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from nearshore_indexer.jobs.errors import JobTemplateError, NoSourcesError

CONTAINER = "index"  # of the template, which runs `nearshore index`
VOLUME = "sources"
SOURCES = PurePosixPath("/sources")  # where that volume is mounted


def pod_path(source: str) -> str:
    """A file as the pods name it: what is relative lies below /sources."""
    return str(SOURCES / source)


def fill(template: str, place: str, *, shards: int, arguments: Sequence[str], claim: str | None) -> dict[str, Any]:
    """The Job to create: template is YAML; place says where it comes from; arguments are those of `nearshore`.

    claim: name of the PersistentVolumeClaim to mount at /sources, read-only; None: whatever the template mounts there.
    Raises JobTemplateError.
    """
    job = _parsed(template, place)
    spec: dict[str, Any] = job["spec"]
    pod: dict[str, Any] = spec["template"]["spec"]
    spec["completionMode"] = "Indexed"
    spec["completions"] = spec["parallelism"] = shards
    _named(pod, "containers", CONTAINER, place)["args"] = list(arguments)
    if claim is not None:
        volume = _named(pod, "volumes", VOLUME, place)
        volume.clear()
        volume.update({"name": VOLUME, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
    metadata: dict[str, Any] = job.setdefault("metadata", {})
    if "name" in metadata:  # of which there could be only one
        metadata["generateName"] = metadata.pop("name") + "-"
    return job


def check_sources_mounted(job: dict[str, Any], files: Sequence[str], place: str) -> None:
    """Raise NoSourcesError for a file below /sources when the Job mounts only an empty folder there."""
    if "emptyDir" not in _named(job["spec"]["template"]["spec"], "volumes", VOLUME, place):
        return
    for file in files:
        if PurePosixPath(file).is_relative_to(SOURCES):
            raise NoSourcesError(file)


def _parsed(template: str, place: str) -> dict[str, Any]:
    try:
        job = yaml.safe_load(template)
        kind = (job["apiVersion"], job["kind"])
        job["spec"]["template"]["spec"]["containers"][0]["name"]
    except (yaml.YAMLError, KeyError, TypeError, IndexError) as error:
        raise JobTemplateError(place, f"it is no Job ({type(error).__name__}: {error})") from error
    if kind != ("batch/v1", "Job"):
        raise JobTemplateError(place, f"it is {kind[0]} {kind[1]}, not batch/v1 Job")
    found: dict[str, Any] = job
    return found


def _named(pod: dict[str, Any], kind: str, name: str, place: str) -> dict[str, Any]:
    """The container or volume of that name."""
    each: dict[str, Any]
    for each in pod.get(kind) or ():
        if each.get("name") == name:
            return each
    raise JobTemplateError(place, f"none of its {kind} is called {name!r}")
