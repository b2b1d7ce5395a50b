"""How far a long job is: a bar on a terminal, a plain line every few seconds elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

LINE_INTERVAL_S = 5.0
QUIET_S = 2.0  # what ends sooner shows nothing
GUESS_AFTER_S = 10.0  # before, the rate says little about the rest


class Progress:
    """One job. Use it in a with block; update it as often as you like."""

    def __init__(self, job: str, unit: str) -> None:
        """job: what is being done ("indexing"); unit: of what is counted ("documents"), or empty."""
        self._job = job
        self._unit = unit
        self._started = time.monotonic()
        self._next_line = self._started + QUIET_S
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()

    def update(self, done: int = 0, share: float | None = None, detail: str = "") -> None:
        """Report `done` units, a share of 0 to 1 of the whole where that is known, and anything else to say."""
        now = time.monotonic()
        if now < self._next_line:
            return
        elapsed_s = max(now - self._started, 1e-9)
        if sys.stderr.isatty():
            self._next_line = now
            self._update_bar(share, self._numbers(done, share, elapsed_s, detail))
        else:
            self._next_line = now + LINE_INTERVAL_S
            percent = f"{share:.0%}, " if share is not None else ""
            sys.stderr.write(f"{self._job}: {percent}{self._numbers(done, share, elapsed_s, detail)}\n")
            sys.stderr.flush()

    def _numbers(self, done: int, share: float | None, elapsed_s: float, detail: str) -> str:
        parts = [f"{done:,} {self._unit}", f"{_rate(done / elapsed_s)}/s"] if self._unit else []
        if share and elapsed_s >= GUESS_AFTER_S:
            parts.append(f"{duration(elapsed_s * (1 - share) / share)} left")
        else:
            parts.append(f"{duration(elapsed_s)} so far")
        return ", ".join([*parts, detail] if detail else parts)

    def _update_bar(self, share: float | None, numbers: str) -> None:
        if self._bars is None or self._task is None:
            columns = (
                TextColumn(f"{self._job}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%  {task.fields[n]}"),
            )
            self._bars = Bars(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bars.add_task(self._job, total=None, n=numbers)
            self._bars.start()
        total, completed = (None, 0.0) if share is None else (1.0, min(share, 1.0))
        self._bars.update(self._task, total=total, completed=completed, n=numbers)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.8 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02} min"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
