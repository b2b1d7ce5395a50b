"""The log of one pod, read in a thread of its own and taken up again where it broke off.

It breaks off when a connection is lost, and when the node can follow no more, which looks as if the container had
ended. So a log is at its end only when it was asked for after that. What the node has deleted by then, a rotated file
or the pod itself, nobody gets to see.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from nearshore_indexer.jobs.cluster import Cluster
from nearshore_indexer.jobs.errors import KubernetesForbiddenError, KubernetesRefusedError, KubernetesUnreachableError
from nearshore_indexer.jobs.states import PodState

RETRY_S = 1.0


class PodLog(threading.Thread):
    """Shows each line once, until the container has ended. A daemon: the process may end before the log does."""

    def __init__(
        self,
        cluster: Cluster,
        pod: PodState,
        show: Callable[[int, str], None],
        fail: Callable[[str], None],
        tail_lines: int | None,
    ) -> None:
        """show: takes the shard and a line; fail: takes why there is none; tail_lines: to begin with; None: all."""
        super().__init__(name=f"log of {pod.name}", daemon=True)
        self._cluster = cluster
        self._pod = pod
        self._show = show
        self._fail = fail
        self._tail_lines = tail_lines
        self._ended = threading.Event()
        self._second: datetime | None = None  # of the youngest line, by the clock of the node
        self._shown: set[tuple[datetime, str]] = set()  # lines of that second

    def end(self) -> None:
        """Say that the container has ended: what is read from now on ends where the log does."""
        self._ended.set()

    def run(self) -> None:
        """Read to the end."""
        while True:
            ended = self._ended.is_set()
            try:
                self._read()
            except KubernetesUnreachableError:
                time.sleep(RETRY_S)
            except KubernetesForbiddenError as error:
                return self._fail(error.message)
            except KubernetesRefusedError:  # the pod is gone
                return None
            else:
                if ended:
                    return None
                self._ended.wait(RETRY_S)

    def _read(self) -> None:
        """Show what was not shown yet. Raises what Cluster.follow_log does."""
        known, tail_lines = frozenset(self._shown), self._tail_lines if self._second is None else None
        for written_at, line in self._cluster.follow_log(self._pod.name, since=self._second, tail_lines=tail_lines):
            if written_at is None:
                self._fail(line)
            elif (written_at, line) not in known:
                self._remember(written_at, line)
                self._show(self._pod.shard, line)

    def _remember(self, written_at: datetime, line: str) -> None:
        second = written_at.replace(microsecond=0)
        if self._second is None or second > self._second:
            self._second = second
            self._shown.clear()
        if second == self._second:
            self._shown.add((written_at, line))
