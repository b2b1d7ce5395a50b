"""What the command line prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nearshore.exit_codes import ExitCode

PIPE_COLUMNS = 160  # of a table that does not go to a terminal

_as_json = False


def set_json(*, wanted: bool) -> None:
    """Print results as JSON."""
    global _as_json  # noqa: PLW0603 -- one process is one run
    _as_json = wanted


def as_json() -> bool:
    """Whether results are printed as JSON."""
    return _as_json


def emit(result: Any) -> None:
    """Print a result as one line of JSON on standard output; datetimes become RFC 3339."""
    write(json.dumps(result, ensure_ascii=False, default=_plain) + "\n")


def write(text: str) -> None:
    """Print text on standard output. A reader that has had enough (| head) ends the command quietly."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        raise typer.Exit(ExitCode.OK) from None


def show(*parts: Any) -> None:
    """Print rich renderables on standard output, in colours on a terminal."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)
    with console.capture() as captured:
        console.print(*parts)
    text = captured.get()
    if not sys.stdout.isatty():  # rich pads lines to the width
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    write(text)


def note(message: str) -> None:
    """Tell the person at the terminal something that is no result."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(message))


def warn(message: str) -> None:
    """Tell the person at the terminal what to look at."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[yellow]warning:[/] {escape(message)}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """A plain table of text; `right` names the columns that are aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Table) else escape(str(cell)) for cell in row))
    return made


def facts(pairs: Sequence[tuple[str, object]]) -> Table:
    """Names and values, one a line."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, escape(str(value)))
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
