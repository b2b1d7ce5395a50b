"""What `nearshore eval` takes as judgements, and what it refuses."""

import os
import re
import threading
from pathlib import Path

import pytest

from nearshore.cli import main
from nearshore.cli.evaluation import EvaluationFileError, read_judgements, read_queries
from nearshore.cli.metrics import average
from nearshore.exit_codes import ExitCode

KNOWN = {"q1": "pies", "q2": "jets"}


@pytest.mark.parametrize(
    "text",
    [
        "q1\td1\t1\nq2\td2\t0\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t1\n\nq2\td2\t0\n",
        "a\tb\tc\nq1\td1\t1\nq2\td2\t0",
        "q1 0 d1 1\nq2 Q0 d2 0\n",
        "q1\t0\td1\t1\nq2\t0\td2\t0\n",
    ],
)
def test_judgements_have_three_columns_or_the_four_of_trec(text: str, tmp_path: Path) -> None:
    """A header is skipped, and so is TREC's iteration."""
    (tmp_path / "qrels").write_text(text)
    assert read_judgements(tmp_path / "qrels", KNOWN) == {"q1": {"d1": 1}, "q2": {"d2": 0}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("q1 d1 1\nq2 d2 1\n", 1),
        ("q1\td1\tx\nq2\td2\t1\n", 1),
        ("q1\td1\n", 1),
        ("query-id\tcorpus-id\tscore\nquery-id\tcorpus-id\tscore\n", 2),
        ("q1\td1\t1\nq2\td2\t0.5\n", 2),
    ],
)
def test_a_line_that_is_no_judgement_is_named(text: str, line: int, tmp_path: Path) -> None:
    """Also the first one: what cannot be a header is not swallowed as one."""
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(EvaluationFileError, match=f"qrels:{line} is no judgement"):
        read_judgements(tmp_path / "qrels", KNOWN)


@pytest.mark.parametrize("relevance", ["2147483648", "-2147483648", "9" * 400, "9" * 5_000, "0" * 5_000 + "9" * 11])
@pytest.mark.parametrize("before", ["", "q1\td0\t1\n"])
def test_a_relevance_that_no_figure_can_hold_is_refused(before: str, relevance: str, tmp_path: Path) -> None:
    """With file and line, as other broken lines are; also in the first one, which is then no header."""
    (tmp_path / "qrels").write_text(f"{before}q1\td1\t{relevance}\n")
    line = 2 if before else 1
    with pytest.raises(EvaluationFileError, match=rf"qrels:{line}: the relevance \S{{1,23}} is out of range"):
        read_judgements(tmp_path / "qrels", KNOWN)


def test_the_largest_relevances_make_figures(tmp_path: Path) -> None:
    """Leading zeros change nothing, and the sums stay finite."""
    largest = (1 << 31) - 1
    (tmp_path / "qrels").write_text(f"q1\td1\t{'0' * 5_000}1\nq1\td2\t{largest}\nq1\td3\t-{largest}\n")
    judged = read_judgements(tmp_path / "qrels", KNOWN)
    assert judged == {"q1": {"d1": 1, "d2": largest, "d3": -largest}}
    assert 0.99 < average({"q1": ["d2", "d1", "d3"]}, judged, recall_at=[10]).ndcg_at_10 <= 1.0


@pytest.mark.parametrize("relevance", [1, 0])
def test_a_judgement_may_be_repeated_but_not_contradicted(relevance: int, tmp_path: Path) -> None:
    """Which of two relevances counts is not for the reader to choose."""
    (tmp_path / "qrels").write_text(f"q1\ta\t1\nq1\ta\t{relevance}\n")
    if relevance == 1:
        assert read_judgements(tmp_path / "qrels", KNOWN) == {"q1": {"a": 1}}
        return
    with pytest.raises(EvaluationFileError, match="qrels:2: an earlier line judges document 'a' for query 'q1'"):
        read_judgements(tmp_path / "qrels", KNOWN)


def test_queries_are_json_lines_with_id_and_text(tmp_path: Path) -> None:
    """BEIR's _id goes before id, and an integer stands for its digits."""
    lines = ['{"_id": "q1", "id": "x", "text": "pies"}', "", '{"id": 7, "text": "jets\u2028fly", "metadata": {}}']
    (tmp_path / "queries").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read_queries(tmp_path / "queries") == {"q1": "pies", "7": "jets\u2028fly"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "q1", "text": "again"}', "an earlier line has the query id 'q1' too"),
        ('{"id": "a", "text": 5}', "text is missing or no string"),
        ('{"id": "a"}', "text is missing or no string"),
        ('{"id": 7, "text": ["l"]}', "text is missing or no string"),
        ('{"id": "", "text": "x"}', "id (or _id) is missing, empty or no string"),
        ('{"id": true, "text": "x"}', "id (or _id) is missing, empty or no string"),
        ('{"text": "x"}', "id (or _id) is missing, empty or no string"),
        (r'{"id": "a", "text": "x\ud800"}', "text has half of a surrogate pair"),
        ('["a", "x"]', "the line is a list, not an object"),
        ('"a"', "the line is a string, not an object"),
        ('{"id": "a"', "not JSON: Expecting ',' delimiter at column 11"),
    ],
)
def test_a_broken_query_is_named_and_nothing_is_run(
    line: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong input, with file, line and what is expected, as all wrong input of eval."""
    (tmp_path / "qrels").write_text("q1\td1\t1\n")
    (tmp_path / "queries").write_text(f'{{"id": "q1", "text": "pies"}}\n{line}\n')
    files = ["--corpus", "none", "--queries", str(tmp_path / "queries"), "--qrels", str(tmp_path / "qrels")]
    assert main.run(["eval", *files]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "queries:2" in shown
    assert problem in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("smaller", ["limits.max_limit", "limits.max_window"])
def test_a_depth_beyond_the_limit_starts_no_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, smaller: str
) -> None:
    """The server of eval's own has the limits of the settings, so they are known before anything is read."""
    for setting in ("limits.max_limit", "limits.max_window"):
        variable = f"NEARSHORE_{setting.upper().replace('.', '__')}"
        monkeypatch.setenv(variable, "1000" if setting == smaller else "10000")
    monkeypatch.setattr("nearshore.cli.evaluate.LocalServer", None)
    (tmp_path / "qrels").write_text("q1\td1\t1\n")
    for name in ("queries", "corpus"):
        (tmp_path / name).write_text('{"id": "q1", "text": "pies"}\n')
    files = [f"--{name}={tmp_path / name}" for name in ("corpus", "queries", "qrels")]
    assert main.run(["eval", *files, "--k", "5", "--k", "1001"]) == ExitCode.USAGE
    assert f"need 1,001 hits; {smaller} allows 1,000" in " ".join(re.findall(r"[^\s│]+", capsys.readouterr().err))


@pytest.mark.parametrize("qrels", ["", "query\tdocument\tscore\n", "other\td1\t1\n"])
def test_eval_fails_where_no_query_is_judged(qrels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zeros would look like a bad model."""
    (tmp_path / "qrels").write_text(qrels)
    (tmp_path / "queries").write_text('{"id": "q1", "text": "pies"}\n')
    files = ["--corpus", "none", "--queries", str(tmp_path / "queries"), "--qrels", str(tmp_path / "qrels")]
    assert main.run(["eval", *files]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert not shown.out
    assert "judges no query" in shown.err


def test_a_file_that_is_a_pipe_is_waited_for_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who named one by mistake sees what the command waits for; what comes is read as from any file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("q1 0 d1 1\n",))
    writer.start()
    assert read_judgements(pipe, KNOWN) == {"q1": {"d1": 1}}
    writer.join()
    assert "is a pipe: it is read as soon as a program writes into it" in " ".join(capsys.readouterr().err.split())
