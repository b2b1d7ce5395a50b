"""Connections that give up a server which is silent: a frozen one keeps them open, and no keepalive notices."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg

_T = TypeVar("_T")


class SilentError(psycopg.OperationalError):
    """The server has not answered for too long; its connection was closed, for nobody knows what it is at."""

    sqlstate = "08S01"  # ODBC's "communication link failure": PostgreSQL has no code for it


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which each wait ends with SilentError when nothing has come for silence_s.

    at_work: asked at that moment, where it is set; while it says yes, the wait goes on.
    """

    silence_s: float = 60.0
    at_work: Callable[[], bool] | None = None
    abandoned = False  # set by another thread: the present wait is to end now

    def wait(self, gen: Generator[Any, Any, _T], *arguments: Any, **keywords: Any) -> _T:
        """As psycopg's, through which all its statements wait; it resumes gen ten times a second, come what may."""
        try:
            return super().wait(self._attended(gen), *arguments, **keywords)
        except SilentError:
            self.close()
            raise

    def _attended(self, gen: Generator[Any, Any, _T]) -> Generator[Any, Any, _T]:
        try:
            wanted = next(gen)
            heard_at = time.monotonic()
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    heard_at = now
                elif self.abandoned or now - heard_at >= self.silence_s:
                    if self._is_lost():
                        raise SilentError(f"no answer for {now - heard_at:.0f} s")
                    heard_at = time.monotonic()
                wanted = gen.send(ready)
        except StopIteration as done:
            result: _T = done.value
            return result

    def _is_lost(self) -> bool:
        return self.abandoned or self.at_work is None or not self.at_work()
