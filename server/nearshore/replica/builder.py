"""The one thread that builds indexes and writes snapshots, so that neither delays the feed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Protocol


class Task(Protocol):
    """Work that touches nothing the follower writes. Expected failures stay in the task; any other ends the process."""

    def run(self) -> None:
        """Do it all, in the builder thread."""


class Builder:
    """Runs tasks one after the other, as they came: a large one that smaller ones overtook might never be run."""

    def __init__(self, on_death: Callable[[BaseException], None]) -> None:
        """on_death: told the error that ended the thread."""
        self._tasks: queue.SimpleQueue[tuple[Task, Callable[[], None]] | None] = queue.SimpleQueue()
        self._on_death = on_death
        self._thread = threading.Thread(target=self._work, name="builder", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, task: Task, on_done: Callable[[], None]) -> None:
        """Run `task` after those before it, then call on_done in the builder thread."""
        self._tasks.put((task, on_done))

    def close(self, grace_s: float) -> bool:
        """Stop after the present task; wait for that at most grace_s. Returns whether the thread has ended.

        Tasks that still queue are never run.
        """
        if not self._thread.is_alive():
            return True
        while not self._tasks.empty():
            with contextlib.suppress(queue.Empty):  # the thread took it first
                self._tasks.get_nowait()
        self._tasks.put(None)
        self._thread.join(grace_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while (entry := self._tasks.get()) is not None:
                task, on_done = entry
                task.run()
                on_done()
        except BaseException as error:  # whatever it was, the process must not go on without a builder
            self._on_death(error)
