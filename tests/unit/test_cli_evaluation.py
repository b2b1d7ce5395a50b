"""What `nearshore eval` takes as judgements, and what it refuses."""

from pathlib import Path

import pytest

from nearshore.cli import main
from nearshore.cli.evaluation import EvaluationFileError, read_judgements
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
