"""What the API server says about a Job and its pods, in the words that following one needs."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nearshore_indexer.jobs.template import CONTAINER

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
_STARTING = {"ContainerCreating", "PodInitializing"}


class Verdict(enum.Enum):
    """How far a Job is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class JobState:
    """A Job at one moment."""

    name: str
    shards: int
    done: int  # shards that are finished
    failed: tuple[int, ...]  # shards that are given up
    verdict: Verdict
    message: str  # why it failed, in the words of Kubernetes


@dataclass(frozen=True, slots=True)
class PodState:
    """The container `index` of a pod of the Job at one moment."""

    name: str
    shard: int
    created: str  # RFC 3339, to the second
    started: bool  # there is a log
    exit_code: int | None  # None: it has not ended
    problem: str  # why it does not start, or how it ended; else empty


def job_state(job: dict[str, Any]) -> JobState:
    """Of a batch/v1 Job."""
    status = job.get("status") or {}
    verdict, message = Verdict.RUNNING, ""
    for condition in status.get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in {"Complete", "Failed"}:
            verdict = Verdict.SUCCEEDED if condition["type"] == "Complete" else Verdict.FAILED
            message = condition.get("message") or condition.get("reason") or ""
    return JobState(
        name=job["metadata"]["name"],
        shards=job["spec"]["completions"],
        done=len(tuple(_indexes(status.get("completedIndexes")))),
        failed=tuple(_indexes(status.get("failedIndexes"))),
        verdict=verdict,
        message=message,
    )


def pod_state(pod: dict[str, Any]) -> PodState:
    """Of a v1 Pod that a Job made."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    containers = status.get("containerStatuses") or ()
    container: dict[str, Any] = next((each for each in containers if each["name"] == CONTAINER), {})
    state = container.get("state") or {}
    ended = state.get("terminated")
    places = {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}
    return PodState(
        name=metadata["name"],
        shard=int(places.get(INDEX_LABEL, 0)),
        created=metadata.get("creationTimestamp") or "",
        started="running" in state or ended is not None,
        exit_code=ended["exitCode"] if ended is not None else None,
        problem=_ending(ended) if ended is not None else _obstacle(status, state),
    )


def _ending(ended: dict[str, Any]) -> str:
    """How a container ended: "exit code 137, OOMKilled"."""
    code, reason = ended["exitCode"], ended.get("reason") or ""
    if code == 0:
        return ""
    return f"exit code {code}" + (f", {reason}" if reason not in {"", "Error"} else "")


def _obstacle(status: dict[str, Any], state: dict[str, Any]) -> str:
    """Why a pod does not start, as far as Kubernetes says."""
    waiting = state.get("waiting") or {}
    if waiting.get("reason", "ContainerCreating") not in _STARTING:
        return f"{waiting['reason']}: {waiting.get('message') or 'no more is said'}"
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'not scheduled')}: {condition.get('message', '')}"
    return ""


def _indexes(text: str | None) -> Iterator[int]:
    """Of Kubernetes' form "0-2,4"."""
    for part in (text or "").split(","):
        if part:
            first, _, last = part.partition("-")
            yield from range(int(first), int(last or first) + 1)
