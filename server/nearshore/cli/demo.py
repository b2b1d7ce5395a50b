"""nearshore demo: the whole way on real text, the documentation of the installed Python standard library."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from nearshore.cli import output
from nearshore.cli.exporting import ensure
from nearshore.cli.indexing import (
    Outcome,
    Rejects,
    Run,
    index_through_server,
    json_lines_reader,
    prepare_collection,
)
from nearshore.cli.interrupts import ending_in_order
from nearshore.cli.local_server import LocalServer
from nearshore.cli.progress import duration
from nearshore.cli.search import as_dict, honesty, show_hits
from nearshore.cli.session import session
from nearshore.client import Client, Query, SearchResult
from nearshore.errors import NearshoreError, ServiceError

app = typer.Typer()

COLLECTION = "python-standard-library"
HITS = 3


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the names that answer it; they are compared with the hits, never used to find them."""

    text: str
    answer: str  # regular expression, for the whole name

    def rank_in(self, result: SearchResult) -> int:
        """The rank of the first hit that answers it; 0: none does."""
        names = enumerate((hit.document.id for hit in result.hits), 1)
        return next((rank for rank, name in names if re.fullmatch(self.answer, name)), 0)


QUESTIONS = (
    Question("parse a date from a string", r".*\.strptime"),
    Question("copy a whole directory tree", r"shutil\.copytree"),
    Question("run an external command and capture its output", r"subprocess\.(run|check_output|getoutput)"),
    Question("compress bytes", r"(zlib|bz2|lzma|gzip)(\..*)?"),
    Question("remove leading and trailing whitespace", r"str\.strip"),
    Question("make an HTTP request", r"(urllib|http\.client)(\..*)?"),
    Question("heap queue smallest items", r"heapq(\..*)?"),
    Question("secure random token", r"secrets(\..*)?"),
    Question("compare two files line by line", r"(difflib|filecmp)(\..*)?"),
    Question("schedule a function to run later", r"sched(\..*)?|threading\.Timer(\..*)?|.*\.call_later"),
)


class CorpusError(ServiceError):
    """The documentation of the standard library could not be read."""

    reason = "DEMO_CORPUS"


@app.command()
def demo() -> None:
    """Index the documentation of Python's standard library and answer questions about it.

    Asks ten questions; on a terminal you can then ask your own. Everything is in a temporary folder that is removed.
    """
    started = time.monotonic()
    ensure(session().settings.embedding.model)
    with ending_in_order(), tempfile.TemporaryDirectory(prefix="nearshore-demo-") as name:
        folder = Path(name)
        output.note("Starting a server of its own on a free loopback port ...")
        with LocalServer(folder) as server:
            corpus = _write_corpus(folder / "stdlib.jsonl")
            with server.wait_ready() as client:
                output.note(f"The server listens on {server.address}. Embedding and indexing ...")
                outcome = _index(corpus, client, server.address)
                answers = _ask_all(client)
                if output.as_json():
                    output.emit(_as_dict(outcome, answers, time.monotonic() - started))
                elif sys.stdin.isatty() and sys.stdout.isatty():
                    _ask_person(client)


def _write_corpus(path: Path) -> Path:
    """Collect the documentation in a process of its own, for it imports everything. Raises CorpusError."""
    output.note(f"Reading the documentation strings of Python {sys.version.split()[0]}'s standard library ...")
    with path.open("wb") as file:
        ended = subprocess.run(
            [sys.executable, "-m", "nearshore.cli.stdlib_corpus"], stdout=file, stderr=subprocess.PIPE, check=False
        )
    if ended.returncode:
        detail = ended.stderr.decode(errors="replace").strip()[-1_000:]
        raise CorpusError(f"The documentation could not be read: {detail}", "Report this with the Python version.")
    return path


def _index(corpus: Path, client: Client, address: str) -> Outcome:
    prepare_collection(client, COLLECTION)
    with Rejects(None) as rejects:
        outcome = index_through_server(Run(json_lines_reader(str(corpus)), rejects), address, COLLECTION)
    documents = outcome.tally.documents
    rate = documents / outcome.searchable_s
    output.note(f"{documents:,} objects searchable after {duration(outcome.searchable_s)}, {rate:,.0f}/s.")
    return outcome


def _ask_all(client: Client) -> list[tuple[Question, SearchResult, float]]:
    answers = []
    for question in QUESTIONS:
        result, elapsed_s = _ask(client, question.text)
        answers.append((question, result, elapsed_s))
        if not output.as_json():
            _show(question.text, result, elapsed_s)
    found = sum(0 < question.rank_in(result) <= HITS for question, result, _ in answers)
    if not output.as_json():
        output.show(f"\nOf {len(answers)} questions, {found} have what was expected among the first {HITS} hits.")
    return answers


def _ask(client: Client, text: str, filter_text: str = "") -> tuple[SearchResult, float]:
    started = time.perf_counter()
    result = client.search(COLLECTION, Query(text=text, limit=HITS, filter=filter_text))
    return result, time.perf_counter() - started


def _ask_person(client: Client) -> None:
    """Answer questions from the terminal until it has no more."""
    output.note("")
    output.note('Ask your own. A filter may follow a bar: copy a file | kind = "function" AND module = "shutil"')
    output.note("An empty line ends the demo.")
    while True:
        try:
            line = input("\nquestion> ").strip()
        except (EOFError, KeyboardInterrupt):
            output.note("")
            return
        if not line:
            return
        text, _, filter_text = (part.strip() for part in line.partition("|"))
        try:
            result, elapsed_s = _ask(client, text, filter_text)
        except NearshoreError as error:
            output.warn(str(error))
            continue
        _show(text, result, elapsed_s)


def _show(text: str, result: SearchResult, elapsed_s: float) -> None:
    output.show(f"\n[bold cyan]{output.quoted(text)}[/]")
    show_hits(result, source_key="source")
    output.show(f"[dim]{output.quoted(honesty(result, elapsed_s, HITS))}[/]")


def _as_dict(outcome: Outcome, answers: list[tuple[Question, SearchResult, float]], elapsed_s: float) -> dict[str, Any]:
    return {
        "documents": outcome.tally.documents,
        "rejected": outcome.rejected,
        "index_s": outcome.searchable_s,
        "elapsed_s": elapsed_s,
        "found": sum(0 < question.rank_in(result) <= HITS for question, result, _ in answers),
        "questions": [
            {"question": question.text, "rank": question.rank_in(result), **as_dict(result, elapsed)}
            for question, result, elapsed in answers
        ],
    }
