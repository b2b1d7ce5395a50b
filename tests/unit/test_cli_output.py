"""What the command line prints of texts that others wrote."""

from collections.abc import Callable

import pytest

from nearshore.cli import failures, output
from nearshore.cli.session import Session, begin
from nearshore.errors import NotFoundError

HOSTILE = "a\x1b]0;b\x07\r\b\x7f\x85\x9b2J\u2028\u202ec\u2066d[bold]"
SHOWN = r"a\x1b]0;b\x07\r\x08\x7f\x85\x9b2J\u2028\u202ec\u2066d[bold]"


def _fail() -> None:
    begin(Session())
    failures.report(NotFoundError(HOSTILE, HOSTILE))


@pytest.mark.parametrize(
    "tell",
    [
        lambda: output.show(output.table(("name",), [(HOSTILE,)])),
        lambda: output.show(output.facts([("name", HOSTILE)])),
        lambda: output.note(HOSTILE),
        lambda: output.warn(HOSTILE),
        _fail,
    ],
    ids=["table", "facts", "note", "warn", "error"],
)
def test_what_steers_a_terminal_is_written_out(tell: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it is printed: control characters, ends of lines, and turns of the direction."""
    output.set_json(wanted=False)
    tell()
    told = "".join(capsys.readouterr())
    assert SHOWN in told
    assert {each for each in told if not each.isprintable()} == {"\n"}


def test_json_keeps_what_others_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    """A script gets the text itself; JSON has escapes of its own."""
    output.emit({"id": "a\x1b\n"})
    assert capsys.readouterr().out == '{"id": "a\\u001b\\n"}\n'


def test_text_in_other_scripts_stays_as_it_is() -> None:
    """Letters, combining and joined ones, and marks of direction steer nothing."""
    text = "שלום\u200f नमस्ते 👩\u200d🔬 e\u0301 \\x1b"
    assert output.visible(text) == text
    assert output.visible("a\n\tb\r", "\n\t") == "a\n\tb\\r"
