"""How long a run waits for a sink that is away or full, and what it says meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from nearshore.errors import DeadlineError, NearshoreError, UnavailableError

TELL_EVERY_S = 30.0


@dataclass(slots=True)
class _Trouble:
    """A kind of failure that has lasted since a moment."""

    patience_s: float
    what: str
    since: float
    tell_at: float


class Patience:
    """Decides whether to try again; one for all writes of a run, so that each trouble is told once."""

    def __init__(self, name: str, warn: Callable[[str], None], *, full_s: float, away_s: float) -> None:
        """name: of the sink, as people know it; full_s, away_s: how long it may refuse everything, or not be there."""
        self._name = name
        self._warn = warn
        self._full_s = full_s
        self._away_s = away_s
        self._full: _Trouble | None = None
        self._away: _Trouble | None = None
        self._last_success = time.monotonic()

    def succeeded(self) -> None:
        """Forget all trouble."""
        self._last_success = time.monotonic()
        self._full = self._away = None

    def lasts(self, error: NearshoreError) -> bool:
        """Whether to try again after an error that may pass. Says so at once, or once it has lasted for a while."""
        now = time.monotonic()
        if isinstance(error, DeadlineError):  # that call alone has waited for long: in vain, if all others did too
            return now - self._last_success <= self._full_s
        if isinstance(error, UnavailableError):
            self._away = self._away or _Trouble(self._away_s, "does not answer", now, now)
            trouble = self._away
        else:  # it answers
            self._away = None
            self._full = self._full or _Trouble(self._full_s, "takes no more for now", now, now + TELL_EVERY_S)
            trouble = self._full
        if now - trouble.since > trouble.patience_s:
            return False
        left_s = trouble.since + trouble.patience_s - now
        if now >= trouble.tell_at and left_s >= 1:
            trouble.tell_at = now + TELL_EVERY_S
            self._warn(f"{self._name} {trouble.what}: {_short(error)}; trying again for up to {left_s:.0f} s")
        return True


def _short(error: NearshoreError) -> str:
    """What went wrong in one line, without the address that is named already."""
    said = error.metadata.get("detail") or error.message or error.reason
    return said.splitlines()[0].rstrip(".")
