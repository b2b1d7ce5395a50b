"""`make prove` does again what is not done yet."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import machine, prove


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of results of two steps, "one" in the precision of the settings and "both"."""
    steps = {"one": prove.Step(dict), "both": prove.Step(dict, both_precisions=True)}
    monkeypatch.setattr(prove, "STEPS", steps)
    monkeypatch.setattr(prove, "RESULTS", tmp_path)
    monkeypatch.setattr(machine, "describe", lambda: {"commit": "fb15ad3"})
    monkeypatch.setattr(sys, "argv", ["prove"])
    return tmp_path


def test_a_result_of_another_precision_is_not_taken_for_done(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step is done where commit, machine and the precisions that it measures are the same."""

    def done() -> set[str]:
        prove.main()
        lines = capsys.readouterr().out.splitlines()
        return {line.partition(":")[0] for line in lines if ": done at" in line}

    assert done() == set()
    assert done() == {"one", "both"}
    monkeypatch.setenv("NEARSHORE_EMBEDDING__PRECISION", "int8")
    assert done() == {"both"}
    assert done() == {"one", "both"}
    written = {path.stem: json.loads(path.read_text())["precisions"] for path in results.iterdir()}
    assert written == {"one": ["int8"], "both": ["fp32", "int8"]}
