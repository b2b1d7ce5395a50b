"""Follows a Job to its end: the logs of its pods, which shards are done, and what keeps a pod from starting."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nearshore_indexer.jobs.cluster import Cluster
from nearshore_indexer.jobs.errors import KubernetesUnreachableError
from nearshore_indexer.jobs.pod_log import PodLog
from nearshore_indexer.jobs.states import JobState, PodState, Verdict

POLL_INTERVAL_S = 1.0
PATIENCE_S = 300.0  # with an API server that does not answer; the Job needs nobody who watches it
NO_POD_S = 30.0  # after which a Job without a pod is worth a word
LOG_END_S = 10.0  # for the last lines of the logs, once the Job has ended


@dataclass(frozen=True, slots=True)
class Ending:
    """How a Job ended."""

    job: JobState
    pods: Sequence[PodState]  # oldest first

    def last_pod(self, shard: int) -> PodState | None:
        """The pod that decided about a shard; None if it is not there any more."""
        return next((pod for pod in reversed(self.pods) if pod.shard == shard and pod.exit_code is not None), None)


@dataclass(frozen=True, slots=True)
class Tell:
    """Where the words go while a Job is followed."""

    line: Callable[[int, str], None]  # of a shard's log
    note: Callable[[str], None]
    warn: Callable[[str], None]


class Follower:
    """Looks at one Job again and again until it has ended."""

    def __init__(
        self,
        cluster: Cluster,
        job: str,
        tell: Tell,
        *,
        tail_lines: int | None = None,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        """tail_lines: of each log that is there at the first look; None: all of it."""
        self._cluster = cluster
        self._job = job
        self._tell = tell
        self._tail_lines = tail_lines
        self._poll_interval_s = poll_interval_s
        self._logs: dict[str, PodLog] = {}
        self._told: set[tuple[str, str]] = set()
        self._done = 0
        self._since = self._reached_at = time.monotonic()

    def run(self) -> Ending:
        """Wait for the end. Raises JobNotFoundError, and what Cluster raises; unreachable only once patience is out."""
        while True:
            try:
                job = self._cluster.read_job(self._job)
                pods = self._cluster.list_pods(self._job)  # after the Job: no older than its verdict
            except KubernetesUnreachableError as error:
                self._endure(error)
            else:
                self._reached_at = time.monotonic()
                self._look(job, pods)
                if job.verdict is not Verdict.RUNNING:
                    break
            time.sleep(self._poll_interval_s)
        for log in self._logs.values():
            log.end()
        for log in self._logs.values():
            log.join(LOG_END_S)
        return Ending(job, pods)

    def _endure(self, error: KubernetesUnreachableError) -> None:
        if time.monotonic() - self._reached_at > PATIENCE_S:
            raise error
        self._once("", f"{error.message} Trying again for up to {PATIENCE_S:.0f} s; the Job goes on meanwhile.")

    def _look(self, job: JobState, pods: Sequence[PodState]) -> None:
        for pod in pods:
            if pod.started:
                self._show_log(pod)
            if pod.problem:
                self._tell_problem(job, pod)
        self._tail_lines = None  # the first look has been
        if job.done > self._done:
            self._done = job.done
            self._tell.note(f"{job.done} of {job.shards} shards are done.")
        if not pods and job.verdict is Verdict.RUNNING and time.monotonic() - self._since > NO_POD_S:
            where = f"kubectl describe job {self._job} --namespace {self._cluster.namespace}"
            self._once(self._job, f"the Job still has no pod; `{where}` says why (a quota, a policy, its account)")

    def _show_log(self, pod: PodState) -> None:
        known = self._logs.get(pod.name)
        log = known or PodLog(self._cluster, pod, self._tell.line, self._cannot_read, self._tail_lines)
        if pod.exit_code is not None:
            log.end()
        if known is None:
            self._logs[pod.name] = log
            log.start()

    def _tell_problem(self, job: JobState, pod: PodState) -> None:
        if pod.exit_code is None:
            self._once(pod.name, f"shard {pod.shard} does not start ({pod.name}): {pod.problem}")
        elif pod.shard not in job.failed and job.verdict is Verdict.RUNNING:
            self._once(pod.name, f"shard {pod.shard} ended with {pod.problem} ({pod.name})")

    def _cannot_read(self, problem: str) -> None:
        self._once("log", f"logs cannot be shown: {problem}")

    def _once(self, subject: str, message: str) -> None:
        if (subject, message) not in self._told:
            self._told.add((subject, message))
            self._tell.warn(message)
