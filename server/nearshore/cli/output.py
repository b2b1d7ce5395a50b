"""What the command line prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import re
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

# C0, DEL and C1 steer a terminal; U+2028 and U+2029 end a line, and U+202A to U+202E and U+2066 to U+2069 turn the
# direction of what follows them. The marks of direction (U+061C, U+200E, U+200F) reach no further than themselves.
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

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


def visible(text: str, layout: str = "") -> str:
    """Text of others with all that steers a terminal written out (as \\x1b, \\n), but for what is in `layout`."""
    return _STEERING.sub(lambda found: found[0] if found[0] in layout else _written_out(found[0]), text)


def quoted(text: str, layout: str = "") -> str:
    """Text of others to stand in rich's markup: neither that nor what steers a terminal has an effect in it."""
    return escape(visible(text, layout))


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
    Console(stderr=True, highlight=False, soft_wrap=True).print(quoted(message))


def warn(message: str) -> None:
    """Tell the person at the terminal what to look at."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[yellow]warning:[/] {quoted(message)}")


def confirm(question: str) -> None:
    """Ask the person at the terminal. Raises typer.Abort unless it is a yes, typer.BadParameter where nobody is there.

    Nothing of it goes to standard output, where typer.confirm puts a space.
    """
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is nobody to ask at this terminal: add --yes")
    sys.stderr.write(f"{question} [y/N]: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise typer.Abort


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """A plain table of text; `right` names the columns that are aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Table) else quoted(str(cell)) for cell in row))
    return made


def facts(pairs: Sequence[tuple[str, object]]) -> Table:
    """Names and values, one a line."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, quoted(str(value)))
    return made


def _written_out(character: str) -> str:
    return repr(character)[1:-1]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
