"""The commands against a running server, in this process; output as a script would read it."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearshore.cli import main
from nearshore.exit_codes import ExitCode
from tests.servers import InProcessServer
from tests.tiny_bert import make_checkpoint, vocabulary

Capture = pytest.CaptureFixture[str]
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(server: InProcessServer, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with --json against the shared server; returns its exit code and what it printed."""

    def run_command(*arguments: str) -> tuple[int, Any]:
        options = ["--json", "--server", server.address, "--data-dir", str(tmp_path / "none")]
        code = main.run([*options, "--model-dir", str(model_dir), *arguments])
        out = capsys.readouterr().out
        return code, [json.loads(line) for line in out.splitlines()]

    return run_command


def json_lines(path: Path, *records: object) -> str:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_index_then_search(run: Run, collection_id: str, tmp_path: Path) -> None:
    """The collection is created, every document is found at once, and the answer says how it was made."""
    records = [{"id": str(n), "text": f"the number {n} of red fish", "metadata": {"n": n}} for n in range(20)]
    file = json_lines(tmp_path / "a.jsonl", *records)
    code, (figures,) = run("index", file, "-c", collection_id)
    assert (code, figures["documents"], figures["embedded"], figures["rejected"]) == (ExitCode.OK, 20, 20, 0)
    code, (answer,) = run("search", "the number 7 of red fish", "-c", collection_id, "--filter", "n < 10", "-n", "3")
    assert (code, len(answer["hits"]), answer["hits"][0]["id"]) == (ExitCode.OK, 3, "7")
    assert answer["hits"][0]["metadata"] == {"n": 7}
    assert answer["exact"] is True
    assert answer["rows_scanned"] == 10
    code, (answer,) = run("search", "--like", "7", "-c", collection_id)
    assert "7" not in [hit["id"] for hit in answer["hits"]]
    code, (figures,) = run("index", file, "-c", collection_id)
    assert (figures["documents"], figures["embedded"], figures["unchanged"]) == (20, 0, 20)


@pytest.mark.parametrize("full", [(), ("--full",)])
def test_documents_cannot_steer_the_terminal(
    run: Run, server: InProcessServer, collection_id: str, tmp_path: Path, capsys: Capture, full: Sequence[str]
) -> None:
    """What they hold is shown as written: it clears no screen, turns no text around, and makes no hit of its own."""
    text = "red\x1b[2J \u202ehsif\x9b1m \x7f"
    forged = f"1\n  2  1.0000  forged{text}"
    document = {"id": forged, "title": f"title\r{text}", "text": text, "metadata": {"key": f"a\nb{text}"}}
    run("index", json_lines(tmp_path / "a.jsonl", document), "-c", collection_id)
    assert main.run(["--server", server.address, "search", "red", "-c", collection_id, *full]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert {each for each in shown if not each.isprintable()} == {"\n"}
    assert r"1\n  2  1.0000  forgedred\x1b[2J \u202ehsif\x9b1m \x7f" in shown
    assert not any(line.startswith("  2  ") for line in shown.splitlines())
    _, (answer,) = run("search", "red", "-c", collection_id)
    assert (answer["hits"][0]["id"], answer["hits"][0]["text"]) == (forged, text)


def test_a_whole_text_keeps_its_lines(
    run: Run, server: InProcessServer, collection_id: str, tmp_path: Path, capsys: Capture
) -> None:
    """They stand one below the other beside the hit, however the text ends them; nothing else is left out."""
    file = json_lines(tmp_path / "a.jsonl", {"id": "1", "text": "red\r\nfish\n\u2067blue"})
    run("index", file, "-c", collection_id)
    assert main.run(["--server", server.address, "search", "red", "-c", collection_id, "--full"]) == ExitCode.OK
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert shown[1:4] == ["red", "fish", r"\u2067blue"]


def test_warnings_about_input_cannot_steer_the_terminal(
    server: InProcessServer, collection_id: str, tmp_path: Path, capsys: Capture
) -> None:
    """Names of files and fields are others' texts: each warning is one line, whatever they hold."""
    (tmp_path / "a\x1b[2J\nwarning: b.jsonl").write_text('broken\n{"id": "1", "text": "x", "\x7f\u202e": 1}\n')
    command = ["--server", server.address, "index", str(tmp_path), "-c", collection_id]
    assert main.run(command) == ExitCode.REJECTED
    told = capsys.readouterr().err
    assert {each for each in told if not each.isprintable()} == {"\n"}
    assert r"a\x1b[2J\nwarning: b.jsonl:1: " in told


def test_refused_lines_do_not_stop_the_others(run: Run, collection_id: str, tmp_path: Path) -> None:
    """They are written to --rejects with place and reason, and the exit code says so."""
    file = tmp_path / "a.jsonl"
    # The zero-width space passes every check but the model's own.
    file.write_text(
        '{"id": "1", "text": "fine"}\nbroken\n{"id": "3", "text": "\\u200b"}\n{"id": "4", "text": "fine"}\n'
    )
    rejects = tmp_path / "rejects.jsonl"
    code, (figures,) = run("index", str(file), "-c", collection_id, "--rejects", str(rejects))
    assert (code, figures["documents"], figures["rejected"]) == (ExitCode.REJECTED, 2, 2)
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert sorted((each["line"], each["id"]) for each in told) == [(2, ""), (3, "3")]
    assert next(each["source"] for each in told if each["line"] == 2) == "broken"


def test_all_that_is_refused_can_be_told_on_standard_error(
    server: InProcessServer, collection_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a pod only the log stays: with `--rejects -` each place is in it, however many, and nothing says otherwise."""
    file = tmp_path / "a.jsonl"
    file.write_text("broken\n" * 50)
    command = ["--server", server.address, "index", str(file), "-c", collection_id, "--rejects", "-"]
    assert main.run(command) == ExitCode.REJECTED
    told = capsys.readouterr().err
    assert [line for line in range(1, 51) if f"{file}:{line}: " not in told] == []
    assert "more is refused" not in told


@pytest.mark.parametrize("link", ["", "symbolic", "hard"])
def test_an_input_is_never_overwritten_with_rejects(run: Run, collection_id: str, tmp_path: Path, link: str) -> None:
    """Whatever it is called, it stays as it was; the run would read what it refuses without end."""
    file = rejects = tmp_path / "a.jsonl"
    file.write_text("broken\n")
    if link:
        rejects = tmp_path / "b.jsonl"
        rejects.symlink_to(file) if link == "symbolic" else rejects.hardlink_to(file)
    assert run("index", str(file), "-c", collection_id, "--rejects", str(rejects)) == (ExitCode.USAGE, [])
    assert file.read_text() == "broken\n"


def test_rejects_that_cannot_be_written_are_refused_at_once(run: Run, collection_id: str, tmp_path: Path) -> None:
    """Before anything is indexed or created."""
    file = json_lines(tmp_path / "a.jsonl", {"id": "1", "text": "fine"})
    rejects = str(tmp_path / "none" / "rejects.jsonl")
    assert run("index", file, "-c", collection_id, "--rejects", rejects) == (ExitCode.USAGE, [])
    assert run("collection", "show", collection_id)[0] == ExitCode.NOT_FOUND


def test_shards_through_a_server_share_the_work(run: Run, collection_id: str, tmp_path: Path) -> None:
    """Each indexes its part; what is no part of anything is refused before anything is read."""
    file = json_lines(tmp_path / "a.jsonl", *({"id": str(n), "text": f"red fish {n}"} for n in range(50)))
    parts = [run("index", file, "-c", collection_id, "--shard", f"{index}/3")[1][0] for index in range(3)]
    assert [part["shard"] for part in parts] == ["0/3", "1/3", "2/3"]
    assert min(part["documents"] for part in parts) > 0
    _, (shown,) = run("collection", "show", collection_id)
    assert sum(part["documents"] for part in parts) == shown["status"]["document_count"] == 50
    assert run("index", file, "-c", collection_id, "--shard", "3/3") == (ExitCode.USAGE, [])
    assert run("index", "-", "-c", collection_id, "--shard", "0/3") == (ExitCode.USAGE, [])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--attach", "job"), "--attach"),
        (("--claim", "corpus"), "--claim"),
        (("--shards", "3"), "--shards"),
        (("--release", "nearshore"), "--release"),
        (("--namespace", "search"), "--namespace"),
        (("--store", "postgresql://nobody@127.0.0.1:1/none"), "--store"),
    ],
)
def test_an_option_that_would_be_ignored_writes_nothing(
    server: InProcessServer, collection_id: str, tmp_path: Path, capsys: Capture, options: Sequence[str], named: str
) -> None:
    """Whoever names a Job, a claim or a store beside --server means to write there: the option is named instead."""
    file = json_lines(tmp_path / "a.jsonl", {"id": "1", "text": "fine"})
    command = ["--json", "--server", server.address]
    assert main.run([*command, "index", file, "-c", collection_id, *options]) == ExitCode.USAGE
    assert named in json.loads(capsys.readouterr().err)["error"]["message"]
    assert main.run([*command, "collection", "show", collection_id]) == ExitCode.NOT_FOUND


def test_an_empty_name_is_not_the_current_folder(
    run: Run, collection_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script whose variable is unset indexes nothing, instead of whatever lies where it runs."""
    monkeypatch.chdir(tmp_path)
    json_lines(tmp_path / "a.jsonl", {"id": "1", "text": "fine"})
    assert run("index", "", "-c", collection_id) == (ExitCode.USAGE, [])
    assert run("index", "a.jsonl", "", "-c", collection_id) == (ExitCode.USAGE, [])
    assert run("collection", "show", collection_id)[0] == ExitCode.NOT_FOUND


def test_a_folder_of_tables_is_indexed(run: Run, collection_id: str, tmp_path: Path) -> None:
    """With columns of any name; other columns can be filtered by. A folder without files stops nothing."""
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "a.csv").write_text("key,body,year\n1,red fish,2020\n2,blue bird,2024\n")
    pq.write_table(pa.table({"key": [3], "body": ["green tree"], "year": [2022]}), folder / "b.parquet")
    (tmp_path / "empty").mkdir()
    named = ("--id-column", "key", "--text-column", "body", "--number", "year")
    code, (figures,) = run("index", str(tmp_path / "empty"), str(folder), "-c", collection_id, *named)
    assert (code, figures["documents"]) == (ExitCode.OK, 3)
    code, (answer,) = run("search", "tree", "-c", collection_id, "--filter", "year > 2020")
    assert [hit["id"] for hit in answer["hits"]] == ["3", "2"]


def test_a_shortened_text_leaves_no_stale_passages(run: Run, collection_id: str, tmp_path: Path) -> None:
    """Indexing it again removes the passages that it no longer has, and no others."""
    keep, file = tmp_path / "keep.txt", tmp_path / "a.txt"
    keep.write_text("another file entirely. " * 20)
    file.write_text("the cat sat on the red river. " * 40)
    options = ("-c", collection_id, "--passage-tokens", "20", "--overlap-tokens", "0")
    _, (before,) = run("index", str(file), str(keep), *options)
    file.write_text("the cat sat on the red river. " * 4)
    code, (after,) = run("index", str(file), *options)
    assert code == ExitCode.OK
    assert after["removed"] > 0
    _, (shown,) = run("collection", "show", collection_id)
    assert shown["status"]["document_count"] == before["documents"] - after["removed"]
    _, (answer,) = run("search", "another file", "-c", collection_id, "-f", f'_parent_id = "{file}"', "-n", "100")
    assert len(answer["hits"]) == after["documents"]


def test_text_without_a_sentence_end_is_indexed_whole(run: Run, collection_id: str, tmp_path: Path) -> None:
    """Megabytes in one line, which no single call may carry, do not end the run."""
    file = tmp_path / "a.txt"
    file.write_text("x" * 1_500_000 + " red fish" * 1_000)
    code, (figures,) = run("index", str(file), "-c", collection_id)
    assert (code, figures["rejected"]) == (ExitCode.OK, 0)
    assert figures["documents"] > 10


def test_collections_are_created_listed_and_deleted(run: Run, collection_id: str) -> None:
    """Deleting needs a yes where nobody can be asked."""
    code, (created,) = run("collection", "create", collection_id, "--dimensions", "8", "--metric", "dot")
    assert (code, created["dimensions"], created["metric"], created["model"]) == (ExitCode.OK, 8, "dot", "")
    assert collection_id in [each["name"] for each in run("collection", "list")[1][0]]
    assert run("collection", "create", collection_id, "--dimensions", "8")[0] == ExitCode.FAILED
    assert run("collection", "delete", collection_id)[0] == ExitCode.USAGE
    assert run("collection", "delete", collection_id, "--yes")[0] == ExitCode.OK
    assert run("collection", "show", collection_id)[0] == ExitCode.NOT_FOUND


def test_collections_tell_their_precision(
    run: Run, collection_id: str, server: InProcessServer, capsys: Capture
) -> None:
    """Where the server knows it, in the list and alone; a collection of callers' vectors has none."""
    bare = f"{collection_id}-bare"
    run("collection", "create", collection_id)
    run("collection", "create", bare, "--dimensions", "8")
    _, (listed,) = run("collection", "list")
    found = {each["name"]: each["precision"] for each in listed}
    assert (found[collection_id], found[bare]) == ("fp32", "")
    assert main.run(["--server", server.address, "collection", "show", collection_id]) == ExitCode.OK
    assert ["precision", "fp32"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert main.run(["--server", server.address, "collection", "list"]) == ExitCode.OK
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [collection_id, "0", "tiny", "fp32", "32", "cosine"] in rows
    assert [bare, "0", "-", "-", "8", "cosine"] in rows


def test_documents_are_deleted_by_id(run: Run, collection_id: str, tmp_path: Path) -> None:
    """Those that are there are counted; others are no error."""
    records = ({"id": str(n), "text": f"red fish {n}"} for n in range(4))
    run("index", json_lines(tmp_path / "a.jsonl", *records), "-c", collection_id)
    code, (told,) = run("delete", collection_id, "--id", "1", "--id", "2", "--id", "2", "--id", "none")
    assert (code, told) == (ExitCode.OK, {"collection": collection_id, "deleted_count": 2})
    _, (answer,) = run("search", "fish", "-c", collection_id)
    assert {hit["id"] for hit in answer["hits"]} == {"0", "3"}


def test_a_delete_says_how_many_ids_were_not_there(
    run: Run, server: InProcessServer, collection_id: str, tmp_path: Path, capsys: Capture
) -> None:
    """A slip in an id is no error, but it is told."""
    run("index", json_lines(tmp_path / "a.jsonl", *({"id": n, "text": "fish"} for n in "123")), "-c", collection_id)
    for ids, told in (
        (["1", "none", "none"], "1 document of {}; 1 of the 2 ids were not there."),
        (["2", "3"], "2 documents of {}."),
        (["none"], "0 documents of {}; 1 of the 1 ids were not there."),
    ):
        options = [word for each in ids for word in ("--id", each)]
        assert main.run(["--server", server.address, "delete", collection_id, *options]) == ExitCode.OK
        assert f"Deleted {told.format(collection_id)}" in " ".join(capsys.readouterr().err.split())


def test_more_ids_than_one_call_takes_are_deleted(run: Run, collection_id: str, tmp_path: Path) -> None:
    """Nobody has to know how many that is."""
    run("index", json_lines(tmp_path / "a.jsonl", {"id": "1005", "text": "red fish"}), "-c", collection_id)
    ids = [part for number in range(1_010) for part in ("--id", str(number))]
    assert run("delete", collection_id, *ids)[1][0]["deleted_count"] == 1


def test_a_file_that_is_gone_is_deleted_by_its_path(
    run: Run, collection_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its passages have it as their parent; without --yes somebody is asked, and a script is told to say so."""
    monkeypatch.chdir(tmp_path)
    Path("gone.txt").write_text("red fish. " * 200)
    Path("kept.txt").write_text("blue bird.")
    _, (figures,) = run("index", "gone.txt", "kept.txt", "-c", collection_id)
    command = ("delete", collection_id, "--filter", '_parent_id = "gone.txt"')
    assert run(*command)[0] == ExitCode.USAGE
    for answer, code in (("n\n", ExitCode.FAILED), ("y\n", ExitCode.OK)):
        asked = io.StringIO(answer)
        monkeypatch.setattr(asked, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", asked)
        assert run(*command)[0] == code
    _, (kept,) = run("search", "fish", "-c", collection_id)
    assert [hit["id"] for hit in kept["hits"]] == ["kept.txt#1"]
    assert run(*command, "--yes") == (ExitCode.OK, [{"collection": collection_id, "deleted_count": 0}])
    assert figures["documents"] > 2


@pytest.mark.parametrize(
    "arguments",
    [[], ["--id", "1", "--filter", "a = 1"], ["--id", "1", "--filter", " "], ["--filter", " "], ["--filter", "a ="]],
)
def test_a_delete_without_a_clear_aim_is_refused(arguments: list[str], run: Run, collection_id: str) -> None:
    """Nothing is deleted by mistake."""
    run("collection", "create", collection_id)
    assert run("delete", collection_id, *arguments, "--yes") == (ExitCode.USAGE, [])
    assert run("delete", "not-there", "--id", "1")[0] == ExitCode.NOT_FOUND


def test_text_does_not_go_into_a_collection_of_vectors(run: Run, collection_id: str, tmp_path: Path) -> None:
    """It is said once, not once a document."""
    run("collection", "create", collection_id, "--dimensions", "8")
    code, printed = run("index", json_lines(tmp_path / "a.jsonl", {"id": "1", "text": "x"}), "-c", collection_id)
    assert (code, printed) == (ExitCode.FAILED, [])


def test_embed_gives_the_servers_bits(
    run: Run, server: InProcessServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From arguments or lines, as JSON or NumPy: the float32 values that the client gets."""
    with server.client() as client:
        expected = client.embed(["red fish", "[SEP]"]).vectors
    code, printed = run("embed", "red fish", "[SEP]")
    assert code == ExitCode.OK
    assert np.array_equal(np.array([each["vector"] for each in printed], np.float32), expected)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"red fish\n[SEP]\n")))
    code, (told,) = run("embed", "--npy", str(tmp_path / "e.npy"))
    assert (code, told["rows"]) == (ExitCode.OK, 2)
    assert np.array_equal(np.load(tmp_path / "e.npy"), expected)


def test_vectors_that_cannot_be_written_are_refused_at_once(run: Run, tmp_path: Path) -> None:
    """Before anything is embedded, as for --rejects."""
    assert run("embed", "x", "--npy", str(tmp_path / "none" / "a.npy")) == (ExitCode.USAGE, [])


def test_text_that_is_not_utf8_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument or line of standard input: the caller's mistake, not a bug."""
    for arguments in (["search", "caf\udce9"], ["search", "x", "--filter", "a = \udce9"], ["embed", "caf\udce9"]):
        assert run(*arguments) == (ExitCode.USAGE, [])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"red fish\ncaf\xe9\n")))
    assert run("embed") == (ExitCode.FAILED, [])


def test_eval_scores_a_perfect_corpus_perfectly(run: Run, tmp_path: Path) -> None:
    """Queries that are documents find themselves; unjudged queries and the temporary collection leave no trace."""
    texts = ["red fish", "blue bird", "green tree", "the city by the river"]
    corpus = json_lines(tmp_path / "c.jsonl", *({"_id": f"d{n}", "title": "", "text": t} for n, t in enumerate(texts)))
    asked = [{"_id": f"q{n}", "text": text} for n, text in enumerate([*texts, "unjudged"])]
    queries = json_lines(tmp_path / "q.jsonl", *asked)
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(4)))
    _, (before,) = run("collection", "list")
    code, (figures,) = run("eval", "--corpus", corpus, "--queries", queries, "--qrels", str(qrels), "--exact")
    assert code == ExitCode.OK
    assert (figures["queries"], figures["ndcg@10"], figures["recall@100"], figures["mrr@10"]) == (4, 1.0, 1.0, 1.0)
    assert len(run("collection", "list")[1][0]) == len(before)


def test_eval_says_that_judged_documents_are_not_there(run: Run, tmp_path: Path) -> None:
    """Some are counted; that all are absent is an error, for zeros would look like a bad model."""
    corpus = json_lines(tmp_path / "c.jsonl", {"id": "d1", "text": "red fish"})
    queries = json_lines(tmp_path / "q.jsonl", {"id": "q1", "text": "red fish"})
    files = ["eval", "--corpus", corpus, "--queries", queries, "--qrels", str(tmp_path / "qrels")]
    (tmp_path / "qrels").write_text("q1\td1\t1\nq1\td2\t1\nq1\td3\t0\n")
    code, (figures,) = run(*files)
    assert (code, figures["judgements_of_unknown_documents"], figures["recall@10"]) == (ExitCode.OK, 2, 0.5)
    (tmp_path / "qrels").write_text("q1\t1\t1\n")
    assert run(*files) == (ExitCode.USAGE, [])


def test_eval_says_that_some_input_was_refused(run: Run, tmp_path: Path) -> None:
    """The figures are there, of the rest, and the exit code is that of index."""
    corpus = json_lines(tmp_path / "c.jsonl", {"id": "d1", "text": "red fish"}, {"id": "d2", "text": ""})
    queries = json_lines(tmp_path / "q.jsonl", {"id": "q1", "text": "red fish"})
    (tmp_path / "qrels").write_text("q1\td1\t1\n")
    code, (figures,) = run("eval", "--corpus", corpus, "--queries", queries, "--qrels", str(tmp_path / "qrels"))
    assert (code, figures["documents"], figures["rejected"]) == (ExitCode.REJECTED, 1, 1)
    assert figures["recall@10"] == 1.0


def test_eval_says_that_judged_queries_have_no_text(server: InProcessServer, tmp_path: Path, capsys: Capture) -> None:
    """They are left out of the figures, which is told and counted; those that nobody judged do not matter."""
    texts = {"q1": "red fish", "q2": "", "q3": " \t", "unjudged": ""}
    corpus = json_lines(tmp_path / "c.jsonl", {"id": "d1", "text": "red fish"})
    queries = json_lines(tmp_path / "q.jsonl", *({"id": each, "text": text} for each, text in texts.items()))
    (tmp_path / "qrels").write_text("q1\td1\t1\nq2\td1\t1\nq3\td1\t1\n")
    files = ["--corpus", corpus, "--queries", queries, "--qrels", str(tmp_path / "qrels")]
    assert main.run(["--json", "--server", server.address, "eval", *files]) == ExitCode.OK
    shown = capsys.readouterr()
    figures = json.loads(shown.out)
    assert (figures["queries"], figures["judged_queries_without_text"]) == (1, 2)
    assert f"2 judged queries of {queries} have no text" in shown.err


def test_eval_names_the_line_that_it_cannot_read(run: Run, tmp_path: Path) -> None:
    """A broken judgement ends it before anything is indexed."""
    queries = json_lines(tmp_path / "q.jsonl", {"_id": "q", "text": "x"})
    (tmp_path / "qrels.tsv").write_text("q\td\t1\nq d 1\n")
    code, printed = run("eval", "--corpus", "none", "--queries", queries, "--qrels", str(tmp_path / "qrels.tsv"))
    assert (code, printed) == (ExitCode.USAGE, [])


def test_eval_checks_what_it_is_told_before_it_works(server: InProcessServer, tmp_path: Path, capsys: Capture) -> None:
    """No corpus is indexed for a depth that the server refuses, no server asked for a corpus that is not there."""
    corpus = json_lines(tmp_path / "c.jsonl", {"id": "what indexing would find unjudged", "text": "red fish"})
    queries = json_lines(tmp_path / "q.jsonl", {"id": "q1", "text": "red fish"})
    (tmp_path / "qrels").write_text("q1\td1\t1\n")
    files = ["--queries", queries, "--qrels", str(tmp_path / "qrels")]
    asked = ["--json", "--server", server.address, "eval", "--corpus", corpus, *files, "--k", "100000"]
    assert main.run(asked) == ExitCode.USAGE
    assert "LIMIT_OUT_OF_RANGE" in capsys.readouterr().err
    nobody = ["--server", "127.0.0.1:1", "eval", "--corpus", str(tmp_path / "nope"), *files]
    assert main.run(nobody) == ExitCode.NOT_FOUND


def test_eval_names_a_query_that_the_model_cannot_read(
    server: InProcessServer, tmp_path: Path, capsys: Capture
) -> None:
    """Before the corpus is indexed: what that would find unjudged is not even read."""
    corpus = json_lines(tmp_path / "c.jsonl", {"id": "not judged", "text": "red fish"})
    queries = json_lines(tmp_path / "q.jsonl", {"id": "q1", "text": "fish"}, {"id": "q2", "text": "\u200b"})
    (tmp_path / "qrels").write_text("q1\td1\t1\nq2\td1\t1\n")
    files = ["--corpus", corpus, "--queries", queries, "--qrels", str(tmp_path / "qrels")]
    assert main.run(["--json", "--server", server.address, "eval", *files]) == ExitCode.USAGE
    error = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert "reads no character of 1 judged queries, the first of them 'q2'" in error["message"]


@pytest.mark.parametrize(
    ("setting", "reason"), [("max_queries", "BATCH_SIZE_OUT_OF_RANGE"), ("max_text_bytes", "TEXT_TOO_LARGE")]
)
def test_eval_indexes_nothing_for_queries_that_the_server_refuses(
    start_server: Callable[..., InProcessServer], tmp_path: Path, capsys: Capture, setting: str, reason: str
) -> None:
    """Too many at once, or one that is too long: what indexing would find unjudged is not even read."""
    address = start_server(**{f"limits__{setting}": 40}).address
    corpus = json_lines(tmp_path / "c.jsonl", {"id": "not judged", "text": "red fish"})
    queries = json_lines(tmp_path / "q.jsonl", *({"id": f"q{n}", "text": "fish " * (n % 50)} for n in range(1, 50)))
    (tmp_path / "qrels").write_text("".join(f"q{n}\td\t1\n" for n in range(1, 50)))
    files = ["--corpus", corpus, "--queries", queries, "--qrels", str(tmp_path / "qrels")]
    assert main.run(["--json", "--server", address, "eval", *files]) != ExitCode.OK
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"]["reason"] == reason


def test_what_an_option_says_wrong_is_wrong_usage(run: Run, collection_id: str) -> None:
    """Though only the server knows it; what is right in itself and not there ends with 4."""
    run("collection", "create", collection_id)
    assert run("search", "x", "-c", collection_id, "-f", "a =")[0] == ExitCode.USAGE
    assert run("search", "x", "-c", collection_id, "-n", "1000000")[0] == ExitCode.USAGE
    assert run("search", "x", "-c", "Not There")[0] == ExitCode.USAGE
    assert run("search", "   ", "-c", collection_id)[0] == ExitCode.USAGE
    assert run("embed", "x", "--prompt", "nope")[0] == ExitCode.USAGE
    assert run("search", "x", "-c", "not-there")[0] == ExitCode.NOT_FOUND


def test_an_error_of_the_server_tells_its_remedy_apart(server: InProcessServer, capsys: Capture) -> None:
    """A script finds what to do in a field of its own; a person reads it on a line of its own."""
    command = ["collection", "show", "nowhere", "--server", server.address]
    remedy = "List the collections to see those that exist."
    assert main.run([*command, "--json"]) == ExitCode.NOT_FOUND
    error = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]  # behind what the server logs
    assert (error["message"], error["remedy"]) == ("There is no collection 'nowhere'.", remedy)
    assert main.run(command) == ExitCode.NOT_FOUND
    assert capsys.readouterr().err.endswith(f"error: There is no collection 'nowhere'.\n  {remedy}\n")


@pytest.mark.parametrize(
    "arguments", [["search", "x", "-c", "Bad Name"], ["collection", "create", "x", "--model", "Bad Name"]]
)
def test_a_bad_name_is_told_as_it_was_typed(arguments: list[str], server: InProcessServer, capsys: Capture) -> None:
    """What the API puts before names is nothing that anybody types."""
    assert main.run(["--server", server.address, *arguments]) == ExitCode.USAGE
    told = capsys.readouterr().err.partition("error: ")[2]  # behind the log of the server
    assert "'Bad Name'" in told
    assert "collections/" not in told
    assert "models/" not in told


def test_models_are_explained(run: Run) -> None:
    """Show gives the manifest and fingerprint; an absent model is not found, with the command that gets it."""
    code, (shown,) = run("model", "show", "tiny")
    assert (code, shown["name"], shown["fingerprint"][:5]) == (ExitCode.OK, "tiny", "nsf1-")
    assert [each["name"] for each in run("model", "list")[1][0]] == ["tiny"]
    assert run("model", "get", "tiny")[1][0]["exported"] is False
    assert run("model", "show", "none")[0] == ExitCode.NOT_FOUND


@pytest.mark.parametrize("name", ["../x", "", "a b", "x/y", ".hid", "x" * 129])
def test_a_name_that_no_model_can_have_is_refused_before_anything_is_touched(
    tmp_path: Path, capsys: Capture, name: str
) -> None:
    """Whatever the command, the rule for names is told, and nothing is created, in the model folder or beside it."""
    folder, checkpoint = tmp_path / "all" / "models", make_checkpoint(tmp_path / "checkpoint")
    commands = (("model", "get", name, "--from", str(checkpoint)), ("model", "show", name), ("model", "tokens", name))
    for command in (*commands, ("serve", "--model", name)):
        code = main.run(["--json", "--model-dir", str(folder), "--data-dir", str(tmp_path / "data"), *command])
        told = json.loads(capsys.readouterr().err)["error"]
        assert (code, told["reason"]) == (ExitCode.USAGE, "INVALID_SETTINGS" if command[0] == "serve" else "USAGE")
        assert '1 to 128 of A-Z, a-z, 0-9, ".", "_" and "-"' in told["message"]
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


def test_special_tokens_and_what_a_network_takes(run: Run) -> None:
    """The table alone, and with a pair its tokens, cut and padded as asked; three texts are wrong usage."""
    _, (table,) = run("model", "tokens", "tiny")
    assert (table["padding_id"], table["start_of_sequence_id"], table["end_of_segment_id"]) == (0, 2, 3)
    _, (packed,) = run("model", "tokens", "tiny", "a dog", "the city", "--length", "8")
    assert " ".join(packed["tokens"]) == "[CLS] a dog [SEP] the city [SEP] [PAD]"
    assert (packed["mask"], packed["types"]) == ([1] * 7 + [0], [0, 0, 0, 0, 1, 1, 1, 0])
    assert len(run("model", "tokens", "tiny", "a dog")[1][0]["ids"]) == 4
    assert run("model", "tokens", "tiny", "a", "b", "c")[0] == ExitCode.USAGE
    assert run("model", "tokens", "tiny", "a", "b", "--length", "2")[0] == ExitCode.USAGE


def test_a_model_is_exported_again_for_more_outputs(run: Run, tmp_path: Path) -> None:
    """A bundle that lacks an output that is asked for is made anew; one that has more than is asked for stays."""
    checkpoint, folder = str(make_checkpoint(tmp_path / "checkpoint")), str(tmp_path / "models")

    def get(*options: str) -> tuple[bool, list[str]]:
        _, (got,) = run("model", "get", "mine", "--from", checkpoint, "--model-dir", folder, *options)
        return got["exported"], got["outputs"]

    assert get() == (True, ["sequence_output"])
    assert get("--pooled") == (True, ["sequence_output", "pooled_output"])
    assert get() == (False, ["sequence_output", "pooled_output"])
    again = ("--from", checkpoint, "--model-dir", folder, "--cased")
    assert run("model", "get", "mine", *again)[0] == ExitCode.FAILED  # tokenizer.json says itself how texts are cut
    (tmp_path / "checkpoint" / "tokenizer.json").unlink()
    (tmp_path / "checkpoint" / "vocab.txt").write_text("\n".join(vocabulary()))
    assert run("model", "get", "mine", *again)[0] == ExitCode.FAILED  # other vectors than those of tokenizer.json
    assert get("--cased", "--force")[0] is True
    assert get("--int8")[0] is True
    assert get("--int8", "--force")[0] is True
    assert get("--int8", "--pooled") == (False, ["sequence_output", "pooled_output"]), "what it gave stays"
    assert get("--contract", "tfhub")[1][1:3] == ["pooled_output", "default"]
    assert run("model", "get", "mine", "--from", checkpoint, "--model-dir", folder, "--mlm")[0] == ExitCode.FAILED
