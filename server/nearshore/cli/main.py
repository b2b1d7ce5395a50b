"""The entry point: global options, which command, and what becomes of its errors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nearshore import __version__, logs
from nearshore.cli import failures, output
from nearshore.cli.interrupts import ending_at_once
from nearshore.cli.session import Session, begin
from nearshore.exit_codes import ExitCode
from nearshore.garbage import none_collected

# Command: its module. Only the module of the command that is run is imported: with all of them, FAISS, ONNX Runtime
# and gRPC would cost every `nearshore search` a second.
COMMANDS = {
    "serve": "serve",
    "model": "model",
    "collection": "collection",
    "index": "index",
    "search": "search",
    "delete": "delete",
    "embed": "embed",
    "rerank": "rerank",
    "eval": "evaluate",
    "demo": "demo",
}
GROUPS = {"model", "collection"}
GLOBAL_OPTIONS = {"--config": 1, "--data-dir": 1, "--model-dir": 1, "--server": 1, "--json": 0, "--debug": 0}
"""Options that may stand anywhere, and how many values each takes."""

HELP = """Vector search for retrieval-augmented generation, on CPUs.

Results go to standard output, everything else to standard error. Settings come from options, NEARSHORE_* variables,
the configuration file and defaults, in this order. The options below may also stand after the command.
"""
GLOBAL_HINT = "--server, --data-dir, --model-dir, --config, --json and --debug: see nearshore --help."
EXIT_CODES = (
    "Exit codes: 0 done; 1 failed; 2 wrong options or settings; 3 some input was refused, the rest is done; "
    "4 no such collection, model, document or file; 69 server or data folder cannot be used now; 70 a bug; "
    "130 interrupted."
)


def main() -> None:
    """Run the command that sys.argv names and end the process with its exit code."""
    _open_absent_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    typed, arguments = arguments, hoisted(arguments)
    output.set_json(wanted=_asks_for_json(arguments))  # before the command line is understood, or is not
    logs.configure("warning", "json" if output.as_json() else "console")
    try:
        with ending_at_once(), none_collected():
            app = make_app(arguments)
        # Typer shows wrong usage itself, in a box, and raises SystemExit; out of standalone mode it returns or raises.
        code = app(args=arguments, prog_name="nearshore", standalone_mode=not output.as_json())
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except UnicodeEncodeError as error:
        wrong = next((number for number, argument in enumerate(typed, 1) if not _is_unicode(argument)), None)
        code = failures.report_usage(f"Argument {wrong} is not UTF-8.") if wrong else failures.report_bug(error)
    except Exception as error:
        code = failures.report_any(error)
    return code if isinstance(code, int) else ExitCode.OK


def make_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application, with the command that the arguments name, or with all if they name none."""
    app = typer.Typer(
        help=HELP,
        epilog=EXIT_CODES,
        no_args_is_help=not output.as_json(),
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    )
    app.callback()(_global_options)
    named = [command for command in COMMANDS if command in arguments]
    for command in named or ([] if "--version" in arguments else COMMANDS):
        module = importlib.import_module(f"nearshore.cli.{COMMANDS[command]}")
        for each in module.app.registered_commands:
            each.epilog = GLOBAL_HINT
        group = command if command in GROUPS else None
        app.add_typer(module.app, name=group, no_args_is_help=bool(group) and not output.as_json())
    return app


def hoisted(arguments: Sequence[str]) -> list[str]:
    """The arguments with the global options moved before the command, so that they may stand anywhere.

    What follows "--" stays: it is text.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    front: list[str] = []
    rest: list[str] = []
    position = 0
    while position < end:
        argument = arguments[position]
        name = argument.split("=", 1)[0]
        taken = 1
        if name in GLOBAL_OPTIONS:
            taken += GLOBAL_OPTIONS[name] if "=" not in argument else 0
            front.extend(arguments[position : min(position + taken, end)])
        else:
            rest.append(argument)
        position += taken
    return [*front, *rest, *arguments[end:]]


def _open_absent_streams() -> None:
    """Put the null device where the caller closed a standard stream (`>&-`): Python has None there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            device = Path(os.devnull).open(mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 -- stays
            setattr(sys, name, device)


def _asks_for_json(arguments: Sequence[str]) -> bool:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def _is_unicode(argument: str) -> bool:
    """Whether an argument was UTF-8; Python keeps other bytes as halves of surrogate pairs, which file names may."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def _show_version(wanted: bool) -> None:
    if wanted:
        if output.as_json():
            output.emit({"version": __version__})
        else:
            output.write(f"nearshore {__version__}\n")
        raise typer.Exit


def _set_json(wanted: bool) -> None:
    output.set_json(wanted=wanted)


def _global_options(  # noqa: PLR0913 -- each is an option
    *,
    config: Annotated[Path | None, typer.Option(help="Configuration file (TOML).", metavar="FILE")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the store and snapshots.", metavar="FOLDER")] = None,
    model_dir: Annotated[Path | None, typer.Option(help="Folder of model bundles.", metavar="FOLDER")] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Server to talk to. Default: the one that serves the data folder.", metavar="HOST:PORT"),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print results, and errors, as JSON.", callback=_set_json, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    del json, version  # their callbacks have acted
    begin(Session(config=config, data_dir=data_dir, model_dir=model_dir, server=server, debug=debug))
