"""The log: one line an event on standard error, JSON for machines, colours for a terminal.

structlog's recipe for rendering its own and the standard library's records alike: both pass the same processors.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import Processor


class LogStream:
    """A stream whose writing never fails: a full disk or a closed pipe must not end the thread that had to log."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """stream: None for what standard error is at the moment of each write."""
        self._stream = stream

    def write(self, text: str) -> None:
        """Write text, or drop it where that cannot be done."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            self._target().write(text)

    def flush(self) -> None:
        """Flush, or leave it."""
        with contextlib.suppress(OSError, ValueError):
            self._target().flush()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        with contextlib.suppress(OSError, ValueError):
            return self._target().isatty()
        return False

    def _target(self) -> TextIO:
        target = self._stream or sys.stderr
        if target is None:
            raise ValueError("this process has no standard error")
        return target


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (default: standard error). No call of a logger fails because it cannot be written.

    level: debug, info, warning or error. log_format: json, console, or auto (console on a terminal, else json).
    """
    unfailing = LogStream(stream)
    as_json = log_format == "json" or (log_format == "auto" and not unfailing.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Processor]
    if as_json:
        # Without the locals that structlog shows by default: they hold what callers sent.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        final = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        final = [structlog.dev.ConsoleRenderer(colors=unfailing.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, unfailing)),  # which uses write and flush only
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(unfailing)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.raiseExceptions = False  # else a record that cannot be rendered is told of on standard error itself
    logging.basicConfig(level=number, handlers=[handler], force=True)
    logging.getLogger("faiss").setLevel(max(number, logging.WARNING))  # it tells how it looks for its own library
