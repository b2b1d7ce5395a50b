"""nearshore search: ask a server for the passages closest to a text or to a document."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from nearshore.cli import output
from nearshore.cli.connection import INT32, connect
from nearshore.client import FewerReason, Query, SearchResult

app = typer.Typer()

DEFAULT_COLLECTION = "default"
EXCERPT_CHARACTERS = 300
TEXT_LAYOUT = "\n\t"  # what a whole text keeps of its own

_WHY_FEWER = {
    FewerReason.COLLECTION: "the collection holds no more documents",
    FewerReason.FILTER: "no more documents match the filter",
    FewerReason.SCORE_THRESHOLD: "no more documents reach the threshold",
}


@app.command()
def search(  # noqa: PLR0913 -- each is an option
    text: Annotated[str, typer.Argument(help="What to look for.", show_default=False)] = "",
    *,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where to look.")] = DEFAULT_COLLECTION,
    like: Annotated[str, typer.Option(help="Instead of a text: the id of a document.", metavar="ID")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many hits.", min=0, max=INT32)] = 10,
    offset: Annotated[int, typer.Option(help="How many of the best hits to leave out.", min=0, max=INT32)] = 0,
    filter: Annotated[  # noqa: A002 -- the API's word
        str, typer.Option("--filter", "-f", help='Only documents that match, as in: lang = "en" AND year >= 2020')
    ] = "",
    threshold: Annotated[float | None, typer.Option(help="Only hits with at least this score.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Score every document instead of trusting the graph.")] = False,
    ef_search: Annotated[
        int | None, typer.Option(help="Candidates that the graph search keeps.", min=0, max=INT32)
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show whole texts and metadata.")] = False,
) -> None:
    """Search a collection. Needs a server: start one with `nearshore serve`."""
    if bool(text) == bool(like):
        raise typer.BadParameter("give either a text to look for or --like ID")
    query = Query(
        text=text or None,
        document_id=like or None,
        limit=limit,
        offset=offset,
        score_threshold=threshold,
        filter=filter,
        exact=exact,
        ef_search=ef_search,
    )
    with connect() as client:
        started = time.perf_counter()
        result = client.search(collection, query)
        elapsed_s = time.perf_counter() - started
    if output.as_json():
        output.emit(as_dict(result, elapsed_s))
    else:
        show_hits(result, first=offset + 1, full=full)
        output.show(f"[dim]{output.quoted(honesty(result, elapsed_s, limit))}[/]")


def as_dict(result: SearchResult, elapsed_s: float) -> dict[str, Any]:
    """An answer for JSON."""
    state = result.read_state
    return {
        "hits": [
            {
                "score": round(hit.score, 6),
                "id": hit.document.id,
                "title": hit.document.title,
                "text": hit.document.text,
                "parent_id": hit.document.parent_id,
                "metadata": dict(hit.document.metadata),
            }
            for hit in result.hits
        ],
        "exact": result.exact,
        "rows_scanned": result.rows_scanned,
        "ef_search": result.ef_search,
        "fewer_reason": result.fewer_reason.value,
        "index_generation": result.index_generation,
        "position": state.position,
        "head": state.head,
        "commit_at": state.commit_at,
        "query_tokens": result.query_tokens,
        "query_tokens_used": result.query_tokens_used,
        "embedding_s": result.embedding_s,
        "index_s": result.index_s,
        "elapsed_s": elapsed_s,
    }


def show_hits(result: SearchResult, *, first: int = 1, full: bool = False, source_key: str = "") -> None:
    """Print hits: number, score, id and title, then the text; source_key: metadata to print beside the id."""
    for number, hit in enumerate(result.hits, first):
        document = hit.document
        title = f"  {output.quoted(document.title)}" if document.title and document.title != document.id else ""
        text = document.text.replace("\r\n", "\n") if full else excerpt(document.text)
        beside = document.metadata.get(source_key)
        source = f"  [dim]{output.quoted(str(beside))}[/]" if beside is not None else ""
        name = output.quoted(document.id)
        output.show(f"[bold]{number:>3}[/]  [green]{hit.score:.4f}[/]  [bold]{name}[/]{title}{source}")
        output.show(_indented(output.visible(text, TEXT_LAYOUT)))
        if full and document.metadata:
            metadata = ", ".join(f"{key} = {value}" for key, value in document.metadata.items())
            output.show(_indented(output.visible(metadata), "dim"))


def honesty(result: SearchResult, elapsed_s: float, limit: int) -> str:
    """One line on how far the answer can be trusted, and what it took."""
    how = "exact" if result.exact else f"approximate (ef_search {result.ef_search})"
    count = len(result.hits)
    parts = [f"{count} hit{'' if count == 1 else 's'}", how, f"{result.rows_scanned:,} rows scored"]
    if len(result.hits) < limit and result.fewer_reason in _WHY_FEWER:
        parts.append(_WHY_FEWER[result.fewer_reason])
    if result.query_tokens_used < result.query_tokens:
        parts.append(f"the query was cut from {result.query_tokens} to {result.query_tokens_used} tokens")
    if behind := result.read_state.head - result.read_state.position:
        parts.append(f"{behind} commits behind the store")
    times = f"embedding {result.embedding_s * 1e3:.1f} + index {result.index_s * 1e3:.1f}"
    return f"{'; '.join(parts)}; {elapsed_s * 1e3:.1f} ms ({times})"


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 1].rstrip() + "…"


def _indented(text: str, style: str = "") -> Padding:
    return Padding(Text(text, style=style), (0, 0, 0, 13))
