"""The log of one pod, read in a thread of its own and taken up again where a lost connection left it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from nearshore_indexer.jobs.cluster import Cluster
from nearshore_indexer.jobs.errors import KubernetesForbiddenError, KubernetesRefusedError, KubernetesUnreachableError
from nearshore_indexer.jobs.states import PodState

RETRY_S = 1.0
REMEMBERED_LINES = 5_000  # of which those that come again are known
OVERLAP_S = 5  # that are asked for again: the cluster's clock is not ours


class PodLog(threading.Thread):
    """Shows each line once, until the container ends. A daemon: the process may end before the log does."""

    def __init__(
        self,
        cluster: Cluster,
        pod: PodState,
        show: Callable[[int, str], None],
        fail: Callable[[str], None],
        tail_lines: int | None,
    ) -> None:
        """show: takes the shard and a line; fail: takes why there is no log; tail_lines: to begin with; None: all."""
        super().__init__(name=f"log of {pod.name}", daemon=True)
        self._cluster = cluster
        self._pod = pod
        self._show = show
        self._fail = fail
        self._tail_lines = tail_lines
        self._shown: deque[str] = deque(maxlen=REMEMBERED_LINES)
        self._heard_at: float | None = None

    def run(self) -> None:
        """Read to the end."""
        while True:
            try:
                self._read()
            except KubernetesUnreachableError:
                time.sleep(RETRY_S)
            except KubernetesForbiddenError as error:
                return self._fail(error.message)
            except KubernetesRefusedError:  # the pod is gone
                return None
            else:
                return None

    def _read(self) -> None:
        since_s, tail_lines, seen = None, self._tail_lines, set(self._shown)
        if self._heard_at is not None:
            since_s, tail_lines = int(time.monotonic() - self._heard_at) + OVERLAP_S, None
        for line in self._cluster.follow_log(self._pod.name, since_s=since_s, tail_lines=tail_lines):
            self._heard_at = time.monotonic()
            if line not in seen:
                self._shown.append(line)
                self._show(self._pod.shard, line.partition(" ")[2])
