"""How the command line reads its arguments and ends."""

import errno
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from nearshore.cli import evaluation, main
from nearshore.cli.progress import duration
from nearshore.cli.reference import errors_page
from nearshore.cli.session import Session, begin
from nearshore.documents.errors import ModelNotServedError
from nearshore.errors import InvalidSettingsError, NearshoreError, OverloadedError, PortInUseError, StorageFullError
from nearshore.exit_codes import HELD_UP, OPTIONS, ExitCode, exit_code
from nearshore.index.errors import InvalidFilterError

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["search", "x", "--json"], ["--json", "search", "x"]),
        (["search", "--server", "a:1", "x"], ["--server", "a:1", "search", "x"]),
        (["search", "--server=a:1", "x", "--exact"], ["--server=a:1", "search", "x", "--exact"]),
        (["search", "--", "--json"], ["search", "--", "--json"]),
        (["serve", "--data-dir"], ["--data-dir", "serve"]),
    ],
)
def test_global_options_may_stand_anywhere(typed: list[str], read: list[str]) -> None:
    """They are moved before the command, with their values, but nothing behind -- is touched."""
    assert main.hoisted(typed) == read


def test_version_goes_to_standard_output(capsys: Capture) -> None:
    """A script can read it, also as JSON."""
    assert main.run(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("nearshore ")
    assert main.run(["--json", "--version"]) == ExitCode.OK
    assert list(json.loads(capsys.readouterr().out)) == ["version"]


def test_help_states_the_exit_codes(capsys: Capture) -> None:
    """Every code a process can end with is in --help."""
    assert main.run(["--help"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert all(f" {int(code)} " in told for code in ExitCode)


@pytest.mark.parametrize("arguments", [["bogus"], ["search"], ["search", "x", "--limit", "many"], ["index"]])
def test_wrong_usage_ends_with_two(arguments: list[str], capsys: Capture) -> None:
    """Nothing is printed on standard output for a command that was not understood."""
    assert main.run(arguments) == ExitCode.USAGE
    assert not capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["bogus"], ["search"], ["index", "--nope"], ["collection"], []])
def test_wrong_usage_is_json_where_that_is_asked_for(arguments: list[str], capsys: Capture) -> None:
    """A script reads it as any other error."""
    assert main.run([*arguments, "--json"]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert not shown.out
    error = json.loads(shown.err)["error"]
    assert (error["reason"], error["exit_code"]) == ("USAGE", ExitCode.USAGE)
    assert error["message"]


INTERRUPTED_IMPORT = """
import signal, sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == {late!r}:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError(name)  # as extension modules do that import others

sys.meta_path.insert(0, CtrlC())
signal.signal(signal.SIGINT, getattr(signal, sys.argv[1]))
sys.argv[1:] = ["--help"]
import {module}
{module}.{function}()
"""


@pytest.mark.parametrize(
    ("handling", "code"), [("default_int_handler", ExitCode.INTERRUPTED), ("SIG_IGN", ExitCode.OK)]
)
@pytest.mark.parametrize("late", ["typer", "numpy"])
def test_ctrl_c_while_the_command_is_imported_is_quiet(late: str, handling: str, code: ExitCode) -> None:
    """It takes half a second, and its traceback would tell nobody anything; a caller may have SIGINT ignored."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["nearshore"].partition(":")
    program = INTERRUPTED_IMPORT.format(late=late, module=module, function=function)
    done = subprocess.run([sys.executable, "-c", program, handling], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr, "Exit codes" in done.stdout) == (code, "", code is ExitCode.OK)


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_absent_standard_streams_become_the_null_device(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller may close them (>&-); Python has None in their place."""
    monkeypatch.setattr(sys, "argv", ["nearshore", "--version"])
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == ExitCode.OK
    with getattr(sys, stream) as opened:
        assert opened.name == os.devnull


def test_an_error_is_one_line_and_what_to_do(capsys: Capture) -> None:
    """No traceback; with --json one object on standard error."""
    assert main.run(["search", "x", "--server", "127.0.0.1:1"]) == ExitCode.UNAVAILABLE
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("error: No nearshore server answers")
    assert "nearshore serve" in shown.err
    assert "Traceback" not in shown.err
    assert main.run(["search", "x", "--server", "127.0.0.1:1", "--json"]) == ExitCode.UNAVAILABLE
    shown = capsys.readouterr()
    assert not shown.out
    assert json.loads(shown.err)["error"]["reason"] == "SERVER_UNREACHABLE"


def test_debug_shows_the_traceback(capsys: Capture) -> None:
    """For the person who has to find out why."""
    main.run(["search", "x", "--server", "127.0.0.1:1", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def _bug() -> None:
    raise ZeroDivisionError("of all things")


def _interrupt() -> None:
    raise KeyboardInterrupt


def _fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _log() -> None:
    structlog.get_logger(__name__).warning("it is late", remedy="go home")


@pytest.fixture
def ending_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Lets this be all that every command does."""

    def let(end: Callable[[], None]) -> None:
        begin(Session())
        monkeypatch.setattr(main, "make_app", lambda _: lambda **_: end())

    return let


def test_a_full_disk_has_a_remedy_and_a_code(
    ending_with: Callable[[Callable[[], None]], None], capsys: Capture
) -> None:
    """Whichever file it was: somebody must make room, and then the command can be repeated."""
    ending_with(_fill_the_disk)
    assert main.run([]) == ExitCode.UNAVAILABLE
    assert "No space left on device.\n  Free space or grow the volume" in capsys.readouterr().err


def test_the_log_of_a_command_is_for_its_reader(
    ending_with: Callable[[Callable[[], None]], None], capsys: Capture
) -> None:
    """A person reads no JSON, and a script that asked for it nothing else; whether there is a terminal or not."""
    ending_with(_log)
    main.run([])
    shown = capsys.readouterr().err
    assert "it is late" in shown
    assert "{" not in shown
    main.run(["--json"])
    assert json.loads(capsys.readouterr().err)["event"] == "it is late"


@pytest.mark.parametrize(("ending", "code"), [(_bug, ExitCode.CRASHED), (_interrupt, ExitCode.INTERRUPTED)])
def test_bugs_and_ctrl_c_have_codes_of_their_own(
    ending: Callable[[], None],
    code: ExitCode,
    ending_with: Callable[[Callable[[], None]], None],
    capsys: Capture,
) -> None:
    """Neither ends in a traceback."""
    ending_with(ending)
    assert main.run([]) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidSettingsError("x"), ExitCode.USAGE),
        (InvalidFilterError("x"), ExitCode.USAGE),
        (ModelNotServedError("x"), ExitCode.NOT_FOUND),
        (OverloadedError("x"), ExitCode.UNAVAILABLE),
        (PortInUseError("x"), ExitCode.UNAVAILABLE),
        (StorageFullError("x"), ExitCode.UNAVAILABLE),
    ],
)
def test_exit_codes_say_whose_turn_it_is(error: NearshoreError, code: ExitCode) -> None:
    """A script can tell a mistake in its call from a server that is away."""
    assert exit_code(error) is code


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.31, "0.3 s"),
        (42, "42 s"),
        (185, "3 min 05 s"),
        (7_800, "2 h 10 min"),
        (59.6, "1 min 00 s"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    """No more digits than anybody reads."""
    assert duration(seconds) == said


def test_every_reason_with_an_exit_code_of_its_own_exists() -> None:
    """A reason that is renamed takes its exit code along."""
    known = {evaluation.EvaluationFileError.reason, evaluation.EvaluationMismatchError.reason}  # of commands alone
    page = errors_page()
    assert not [reason for reason in (OPTIONS | HELD_UP) - known if f"`{reason}`" not in page]


def test_modules_are_left_to_no_garbage_collection() -> None:
    """What was imported is never walked again, and collection goes on for all that comes after it."""
    code = """
import gc, sys
from nearshore.__main__ import main
sys.argv = ["nearshore", "serve", "--help"]
try:
    main()
except SystemExit:
    print(gc.get_freeze_count() > len(gc.get_objects()), gc.isenabled(), "nearshore.app" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "True True True"
