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
        self._late: _Trouble | None = None
        self._position = 0  # the furthest that the sink said it stands at
        self._last_success = time.monotonic()

    def succeeded(self) -> None:
        """Forget all trouble."""
        self._last_success = time.monotonic()
        self._full = self._away = self._late = None

    def lasts(self, error: NearshoreError) -> bool:
        """Whether to try again after an error that may pass. Says so at once, or once it has lasted for a while."""
        now = time.monotonic()
        trouble = self._trouble(error, now)
        if now - trouble.since > trouble.patience_s:
            return False
        left_s = trouble.since + trouble.patience_s - now
        if now >= trouble.tell_at and left_s >= 1:
            trouble.tell_at = now + TELL_EVERY_S
            self._warn(f"{self._name} {trouble.what}: {_short(error)}; trying again for up to {left_s:.0f} s")
        return True

    def _trouble(self, error: NearshoreError, now: float) -> _Trouble:
        """What the error is a case of."""
        if isinstance(error, UnavailableError):
            self._away = self._away or _Trouble(self._away_s, "does not answer", now, now)
            return self._away
        if not isinstance(error, DeadlineError):
            self._away = None  # it answers
            self._full = self._full or _Trouble(self._full_s, "takes no more for now", now, now + TELL_EVERY_S)
            return self._full
        since = self._last_success  # that call alone has waited for long: in vain, if all others did too
        self._late = self._late or _Trouble(self._full_s, "is late", since, since + TELL_EVERY_S)
        position = int(error.metadata.get("position", 0))
        if position > self._position:  # it comes nearer
            self._position, self._late.since = position, now
            self._away = self._full = None  # whatever it was, it has passed
        return self._late


def _short(error: NearshoreError) -> str:
    """What went wrong in one line, without the address that is named already."""
    said = error.metadata.get("detail") or error.message or error.reason
    return said.splitlines()[0].rstrip(".")
