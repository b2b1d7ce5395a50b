"""What the exit code of a nearshore process means. Knows errors only; docs/errors.md is generated from it."""

from __future__ import annotations

import enum

from nearshore.errors import (
    CorruptionError,
    InvalidAddressError,
    InvalidSettingsError,
    NearshoreError,
    NotFoundError,
    OverloadedError,
    StorageFullError,
    UnavailableError,
)


class ExitCode(enum.IntEnum):
    """Exit codes of the server and of every command."""

    OK = 0  # done, or stopped as asked by SIGTERM or SIGINT; a server that has not begun yet ends with 143 or 130
    FAILED = 1  # a request was refused or an operation failed; the last line says why and what to do
    USAGE = 2  # flags, environment or configuration file are wrong
    REJECTED = 3  # some of the input was refused, each place named with its reason; the rest is done
    NOT_FOUND = 4  # a collection, model, document or file that was named does not exist
    UNAVAILABLE = 69  # something outside the process is missing: data folder locked or full, port in use, no server
    CRASHED = 70  # a part of the server died; restart it and report the logged traceback
    INTERRUPTED = 130  # Ctrl-C (SIGTERM, SIGHUP); of the server: a second one, after half a second, cut the stop short


CODES: tuple[tuple[type[NearshoreError], ExitCode], ...] = (
    (InvalidSettingsError, ExitCode.USAGE),
    (InvalidAddressError, ExitCode.USAGE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (UnavailableError, ExitCode.UNAVAILABLE),
    (OverloadedError, ExitCode.UNAVAILABLE),
    (StorageFullError, ExitCode.UNAVAILABLE),
    (CorruptionError, ExitCode.UNAVAILABLE),
)
OPTIONS = {
    "DIMENSIONS_OUT_OF_RANGE",
    "EF_SEARCH_OUT_OF_RANGE",
    "EMPTY_TEXT",
    "EVALUATION_FILE",
    "EVALUATION_MISMATCH",
    "INVALID_FILTER",
    "INVALID_ID",
    "INVALID_NAME",
    "INVALID_SCORE_THRESHOLD",
    "LIMIT_OUT_OF_RANGE",
    "PROMPT_UNKNOWN",
}
"""Reasons for which a server, or a command, refuses what an option or an argument said."""

HELD_UP = {"READ_AFTER_HELD_UP"}
"""Reasons for which only what lies outside the process can be mended, such as a full disk."""


def exit_code(error: NearshoreError) -> ExitCode:
    """Of a process that this error ends, be it the server or a command."""
    if error.reason in OPTIONS:
        return ExitCode.USAGE
    if error.reason in HELD_UP:
        return ExitCode.UNAVAILABLE
    return next((code for kind, code in CODES if isinstance(error, kind)), ExitCode.FAILED)
