"""nearshore rerank: texts in the order in which they answer a query, by a cross-encoder of a server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nearshore.cli import output
from nearshore.cli.connection import INT32, connect
from nearshore.cli.lines import lines
from nearshore.cli.progress import Progress
from nearshore.cli.truncation import truncation_of
from nearshore.client import Reranked

app = typer.Typer()

TEXTS_AT_ONCE = 16  # so few that a large model answers in time; however they are divided, each has the same score


@dataclass(frozen=True, slots=True)
class Ranked:
    """One text of all that were given."""

    score: float
    logit: float
    index: int
    text: str
    tokens: int  # with the query, special ones included
    tokens_used: int
    model: str


@app.command()
def rerank(  # noqa: PLR0913 -- each is an option
    query: Annotated[str, typer.Argument(help="What the texts are to answer.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, the lines of --file or of standard input.")
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option(help="Take its lines as texts.", exists=True, dir_okay=False, metavar="FILE")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A cross-encoder. Default: the server's default model, where that is one.")
    ] = "",
    limit: Annotated[int | None, typer.Option(help="Show the best so many. Default: all.", min=1, max=INT32)] = None,
    cut_start: Annotated[
        bool, typer.Option("--cut-start", help="Of text beyond the maximum score the end, not the start.")
    ] = False,
    refuse_long: Annotated[
        bool, typer.Option("--refuse-long", help="Fail on text that is beyond the maximum with the query.")
    ] = False,
) -> None:
    """Sort texts by how well each answers a query, best first; index counts them from 0, as they were given."""
    if texts and file:
        raise typer.BadParameter("give texts or --file, not both")
    if not texts and file is None and sys.stdin.isatty():
        raise typer.BadParameter("give texts, --file, or lines on standard input")
    truncation = truncation_of(cut_start=cut_start, refuse_long=refuse_long)
    with connect() as client, Progress("scoring", "texts") as progress:
        ask = partial(
            client.rerank,
            query,
            model=model,
            truncation=truncation,
        )
        found = _score_all(iter(texts) if texts else _read(file), ask, progress)
    cut = sum(each.tokens_used < each.tokens for each in found)
    _show(sorted(found, key=lambda each: (-each.logit, each.index))[:limit])
    if cut:
        output.warn(f"{cut:,} texts, or the query with them, were cut at the model's maximum.")


def _read(file: Path | None) -> Iterator[str]:
    if file is None:
        yield from lines(sys.stdin.buffer, "standard input")
        return
    with file.open("rb") as opened:
        yield from lines(opened, str(file))


def _score_all(source: Iterator[str], ask: Callable[[list[str]], Reranked], progress: Progress) -> list[Ranked]:
    """Score some texts a call; all stay in memory, to be sorted and shown."""
    found: list[Ranked] = []
    while chunk := list(islice(source, TEXTS_AT_ONCE)):
        answer, first = ask(chunk), len(found)
        ranks = {each.index: each for each in answer.results}
        found += [
            Ranked(ranks[number].score, ranks[number].logit, first + number, text, tokens, tokens_used, answer.model)
            for number, (text, tokens, tokens_used) in enumerate(
                zip(chunk, answer.tokens, answer.tokens_used, strict=True)
            )
        ]
        progress.update(len(found))
    return found


def _show(ranked: list[Ranked]) -> None:
    if output.as_json():
        for each in ranked:
            output.emit(
                {
                    "index": each.index,
                    "score": _shortest(each.score),
                    "logit": _shortest(each.logit),
                    "text": each.text,
                    "tokens": each.tokens,
                    "tokens_used": each.tokens_used,
                    "model": each.model,
                }
            )
        return
    rows = [(f"{each.score:.4f}", f"{each.logit:.4f}", each.index, each.text) for each in ranked]
    output.show(output.table(("score", "logit", "index", "text"), rows, right=("score", "logit", "index")))


def _shortest(number: float) -> float:
    """A float32 as it prints shortest."""
    return float(str(np.float32(number)))
