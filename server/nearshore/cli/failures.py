"""Errors as a person at a terminal, or a script, wants them: one line, what to do, an exit code; no traceback."""

from __future__ import annotations

import json
import sys
import traceback

import typer
from rich.console import Console
from typer.exceptions import TyperException

from nearshore.cli import output
from nearshore.cli.session import session
from nearshore.errors import FULL_DISK, MAKE_ROOM, NearshoreError
from nearshore.exit_codes import ExitCode, exit_code

LINES = "\n\t"  # the end of a log has several


def report(error: NearshoreError) -> ExitCode:
    """Print an error on standard error; returns its exit code."""
    code = exit_code(error)
    _print(error.reason, error.message, error.remedy, code)
    return code


def report_bug(error: BaseException) -> ExitCode:
    """Print an error that nobody foresaw."""
    remedy = "This is a bug in nearshore. Run the command again with --debug and report what it prints."
    _print("INTERNAL", f"{type(error).__name__}: {error}", remedy, ExitCode.CRASHED)
    return ExitCode.CRASHED


def report_any(error: Exception) -> ExitCode:
    """Print whatever ended a command; returns its exit code."""
    match error:
        case NearshoreError():
            return report(error)
        case TyperException():
            return report_usage(error.format_message(), error.exit_code)
        case typer.Abort():
            return report_aborted()
        case OSError():
            return report_system(error)
        case _:
            return report_bug(error)


def report_usage(message: str, code: int = ExitCode.USAGE) -> ExitCode:
    """Print what is wrong with the command line."""
    _print("USAGE", message, "See nearshore --help, or --help after the command.", ExitCode(code))
    return ExitCode(code)


def report_aborted() -> ExitCode:
    """Print that the person who was asked said no."""
    _print("ABORTED", "Aborted.", "", ExitCode.FAILED)
    return ExitCode.FAILED


def report_system(error: OSError) -> ExitCode:
    """Print what the operating system refused (a file that cannot be written, a full disk)."""
    message = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror or error}."
    code, remedy = ExitCode.FAILED, ""
    if error.errno in FULL_DISK:
        code, remedy = ExitCode.UNAVAILABLE, f"{MAKE_ROOM}: it is where data, models or results go."
    _print("SYSTEM", message, remedy, code)
    return code


def _print(reason: str, message: str, remedy: str, code: ExitCode) -> None:
    if session().debug:
        traceback.print_exc(file=sys.stderr)
    if output.as_json():
        error = {"reason": reason, "message": message, "remedy": remedy, "exit_code": int(code)}
        sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error:[/] {output.quoted(message, LINES)}")
    if remedy:
        console.print(f"  {output.quoted(remedy, LINES)}")
