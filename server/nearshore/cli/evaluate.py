"""nearshore eval: how well a model and an index retrieve, on a judged test collection."""

from __future__ import annotations

import shlex
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from nearshore.cli import output
from nearshore.cli.connection import connect, default_model, target
from nearshore.cli.evaluation import (
    Corpus,
    EvaluationMismatchError,
    chunks,
    rank,
    read_judgements,
    read_queries,
)
from nearshore.cli.indexing import (
    Outcome,
    Rejects,
    Run,
    count_through,
    index_through_server,
    json_lines,
    json_lines_reader,
    prepare_collection,
)
from nearshore.cli.interrupts import ending_in_order
from nearshore.cli.local_server import LocalServer
from nearshore.cli.metrics import Figures, Judgements, average
from nearshore.cli.progress import Progress
from nearshore.cli.session import session
from nearshore.client import Client
from nearshore.errors import CollectionNotFoundError, NearshoreError
from nearshore.exit_codes import ExitCode
from nearshore_indexer.sources import Format, check_sources

app = typer.Typer()

DEPTHS = (10, 100)


@app.command(name="eval")
def evaluate(
    *,
    corpus: Annotated[str, typer.Option(help="JSON lines: id (or _id), title, text.", metavar="FILE")],
    queries: Annotated[Path, typer.Option(help="JSON lines: id (or _id), text.", metavar="FILE")],
    qrels: Annotated[Path, typer.Option(help="Tab-separated query, document, relevance; or TREC's.", metavar="FILE")],
    exact: Annotated[bool, typer.Option("--exact", help="Search exactly, whatever the index.")] = False,
    k: Annotated[list[int] | None, typer.Option(help="Depth of recall; may be repeated. Default: 10 and 100.")] = None,
) -> None:
    """Index a corpus into a temporary collection, search it, and print nDCG@10, recall and MRR@10.

    Figures are defined as in trec_eval (linear gain); queries without judgements are left out. Without --server it
    starts a server of its own over a temporary folder.
    """
    depths, limit = _depths(k)
    asked, judged, gaps = _judged_queries(queries, qrels)
    check_sources([corpus], Format.JSONL, output.warn)
    with ending_in_order(), _collection() as (client, collection, model):
        _try_search(client, collection, model, asked, limit)
        outcome, absent = _index(corpus, collection, qrels, {each: judged[each] for each in asked})
        rankings, search_s = _search(client, collection, asked, limit, exact=exact)
    figures = average(rankings, judged, recall_at=depths)
    gaps = {**gaps, "judgements_of_unknown_documents": absent}
    _report(figures, outcome, search_s, model, gaps, exact=exact)
    if outcome.rejected:
        raise typer.Exit(ExitCode.REJECTED)


def _depths(k: list[int] | None) -> tuple[list[int], int]:
    """The depths of recall, and how many hits they need. Raises typer.BadParameter, before any server is started."""
    depths = sorted(set(k or DEPTHS))
    if depths[0] < 1:
        raise typer.BadParameter("k is at least 1")
    needed = max(10, depths[-1])
    limits = session().settings.limits
    most, setting = min((limits.max_limit, "limits.max_limit"), (limits.max_window, "limits.max_window"))
    if session().server is None and needed > most:  # a server that is named has a limit of its own
        raise typer.BadParameter(
            f"k {', '.join(map(str, depths))}{'' if k else ', the default,'} and nDCG@10 need {needed:,} hits; "
            f"{setting} allows {most:,}"
        )
    return depths, needed


def _judged_queries(queries: Path, qrels: Path) -> tuple[dict[str, str], dict[str, dict[str, int]], dict[str, int]]:
    """Texts of the judged queries, all judgements, and counts of what is left out: see _report."""
    known = read_queries(queries)
    judged = read_judgements(qrels, known)
    unknown = sum(len(documents) for query_id, documents in judged.items() if query_id not in known)
    asked = {query_id: text for query_id, text in known.items() if query_id in judged and text.strip()}
    if not asked:
        raise EvaluationMismatchError(
            f"{qrels} judges no query of {queries} that has text.", "Query ids must be the same in both files."
        )
    if unknown:
        output.warn(f"{unknown:,} judgements of {qrels} are of queries that {queries} does not have; they are ignored.")
    empty = len(judged.keys() & known.keys()) - len(asked)
    if empty:
        output.warn(f"{empty:,} judged queries of {queries} have no text; they are left out of the figures.")
    return asked, judged, {"judgements_of_unknown_queries": unknown, "judged_queries_without_text": empty}


@contextmanager
def _collection() -> Iterator[tuple[Client, str, str]]:
    """A client, a temporary collection and its model, on the server that --server names, or on one of our own."""
    name = f"eval-{uuid.uuid4().hex[:12]}"
    if session().server is None:
        with (
            tempfile.TemporaryDirectory(prefix="nearshore-eval-") as folder,
            LocalServer(Path(folder)) as server,
            server.wait_ready() as client,
        ):
            session().server = server.address
            yield client, name, prepare_collection(client, name)
        return
    with connect() as client:
        default_model(client)  # a server that is not there has no collection to delete
        try:
            yield client, name, prepare_collection(client, name)
        finally:
            _delete(client, name)


def _delete(client: Client, collection: str) -> None:
    """Delete the temporary collection; where that fails, tell how to do it later."""
    try:
        client.delete_collection(collection)
    except CollectionNotFoundError:  # it was not even created
        pass
    except BaseException as error:
        command = shlex.join(["nearshore", "--server", target(), "collection", "delete", collection, "--yes"])
        output.warn(f"the temporary collection {collection} may be left on the server; delete it with: {command}")
        if not isinstance(error, NearshoreError):
            raise


def _try_search(client: Client, collection: str, model: str, asked: Mapping[str, str], limit: int) -> None:
    """Search the empty collection: what the server refuses, depth or batch, is refused before the corpus is indexed.

    The longest query, and the most text that is asked at once. Raises EvaluationMismatchError for a query of which the
    model reads nothing.
    """
    counts = {query_id: count for some in _portions(asked) for query_id, count in _counted(client, model, some)}
    unread = [query_id for query_id, count in counts.items() if not count]
    if unread:
        raise EvaluationMismatchError(
            f"{model} reads no character of {len(unread):,} judged queries, the first of them {unread[0]!r}.",
            "Give them text that has words in it, or remove their judgements.",
        )
    longest = max(asked, key=lambda query_id: _size_bytes(asked[query_id]))
    most = max(chunks(asked), key=lambda chunk: sum(_size_bytes(text) for _, text in chunk))
    for batch in ({longest: asked[longest]}, dict(most)):
        rank(client, collection, batch, limit=limit, exact=False, report=lambda _: None)


def _portions(asked: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """All queries, some at a time: no more bytes than the longest has, for it is to be taken in one call too."""
    most_bytes = max(map(_size_bytes, asked.values()))
    portion: dict[str, str] = {}
    size_bytes = 0
    for query_id, text in asked.items():
        size_bytes += _size_bytes(text)
        if portion and size_bytes > most_bytes:
            yield portion
            portion, size_bytes = {}, _size_bytes(text)
        portion[query_id] = text
    yield portion


def _counted(client: Client, model: str, some: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    return zip(some, count_through(client, model, list(some.values())), strict=True)


def _size_bytes(text: str) -> int:
    return len(text.encode())


def _index(corpus: str, collection: str, qrels: Path, judged: Mapping[str, Judgements]) -> tuple[Outcome, int]:
    """Index the corpus. Returns also how many judgements are of documents that it does not have.

    Raises EvaluationMismatchError where it has none: all figures would be 0, as if the model found nothing.
    """
    wanted = [document_id for documents in judged.values() for document_id in documents]
    documents = Corpus(json_lines(), frozenset(wanted))
    with Rejects(None) as rejects:
        outcome = index_through_server(Run(json_lines_reader(corpus, documents), rejects), target(), collection)
    absent = sum(document_id not in documents.found for document_id in wanted)
    if not documents.found:
        raise EvaluationMismatchError(
            f"{qrels} judges no document of {corpus}: none of its document ids is there.",
            "Document ids must be the same in both files.",
        )
    if absent:
        output.warn(
            f"{absent:,} of {len(wanted):,} judgements of {qrels} are of documents that {corpus} does not have; "
            "no search finds them."
        )
    return outcome, absent


def _search(
    client: Client, collection: str, asked: Mapping[str, str], limit: int, *, exact: bool
) -> tuple[dict[str, Sequence[str]], float]:
    """Ids of the best documents for each query, best first, and the seconds that it took."""
    started = time.monotonic()
    with Progress("searching", "queries") as progress:
        rankings = rank(
            client,
            collection,
            asked,
            limit=limit,
            exact=exact,
            report=lambda done: progress.update(done, done / len(asked)),
        )
    return rankings, time.monotonic() - started


def _report(
    figures: Figures, outcome: Outcome, search_s: float, model: str, gaps: Mapping[str, int], *, exact: bool
) -> None:
    documents = outcome.tally.documents
    if output.as_json():
        output.emit(
            {
                "model": model,
                "exact": exact,
                "documents": documents,
                "rejected": outcome.rejected,
                "truncated": outcome.tally.truncated,
                "queries": figures.queries,
                **gaps,
                "ndcg@10": figures.ndcg_at_10,
                **{f"recall@{k}": value for k, value in figures.recall_at.items()},
                "mrr@10": figures.mrr_at_10,
                "index_s": outcome.searchable_s,
                "search_s": search_s,
            }
        )
        return
    rows: list[tuple[str, object]] = [("nDCG@10", f"{figures.ndcg_at_10:.5f}")]
    rows += [(f"recall@{k}", f"{value:.5f}") for k, value in figures.recall_at.items()]
    rows.append(("MRR@10", f"{figures.mrr_at_10:.5f}"))
    output.show(output.facts(rows))
    how = "exact" if exact else "as the index chooses"
    output.note(
        f"{model}, search {how}: {figures.queries:,} judged queries over {documents:,} documents; "
        f"indexed in {outcome.searchable_s:.1f} s, searched in {search_s:.1f} s."
    )
