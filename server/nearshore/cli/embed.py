"""nearshore embed: texts to vectors through a server, for scripts and for looking at what the model sees."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import typer

from nearshore.cli import output
from nearshore.cli.connection import INT32, connect
from nearshore.cli.lines import lines
from nearshore.cli.progress import Progress
from nearshore.cli.truncation import truncation_of
from nearshore.client import Embedded
from nearshore.records import F32

app = typer.Typer()

TEXTS_AT_ONCE = 256


@app.command()
def embed(  # noqa: PLR0913 -- each is an option
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, the lines of standard input.")] = None,
    *,
    npy: Annotated[
        Path | None,
        typer.Option(help="Write a NumPy file (texts, dimensions) instead of JSON lines.", metavar="FILE"),
    ] = None,
    model: Annotated[str, typer.Option(help="Default: the server's.")] = "",
    prompt: Annotated[
        str | None,
        typer.Option(help="Put this prompt of the model before each text: query, say. Default: the model's, if any."),
    ] = None,
    dimensions: Annotated[
        int,
        typer.Option(
            help="Keep the first N components of each vector, as Matryoshka models allow. Default: all.",
            min=0,
            max=INT32,
        ),
    ] = 0,
    normalize: Annotated[
        bool | None, typer.Option(help="Scale each vector to unit length, or leave it. Default: as the bundle says.")
    ] = None,
    cut_start: Annotated[
        bool, typer.Option("--cut-start", help="Of text beyond the maximum embed the end, not the start.")
    ] = False,
    refuse_long: Annotated[bool, typer.Option("--refuse-long", help="Fail on text beyond the maximum.")] = False,
    parse_special: Annotated[
        bool, typer.Option("--parse-special", help="Text that spells [SEP] becomes that token.")
    ] = False,
) -> None:
    """Turn texts into vectors: one JSON object a text, with its tokens, on standard output."""
    if not texts and sys.stdin.isatty():
        raise typer.BadParameter("give texts, or lines on standard input")
    truncation = truncation_of(cut_start=cut_start, refuse_long=refuse_long)
    source = iter(texts) if texts else lines(sys.stdin.buffer, "standard input")
    with connect() as client, _opened(npy) as file, Progress("embedding", "texts") as progress:
        ask = partial(
            client.embed,
            model=model,
            prompt=prompt,
            truncation=truncation,
            special_tokens="parse" if parse_special else "bundle",
            dimensions=dimensions,
            normalize=normalize,
        )
        cut = _embed_all(source, ask, file, progress)
    if cut:
        output.warn(f"{cut:,} texts were cut at the model's maximum.")


def _embed_all(
    source: Iterator[str], ask: Callable[[list[str]], Embedded], npy: IO[bytes] | None, progress: Progress
) -> int:
    """Embed some texts a call; npy: where the vectors go, None for standard output. Returns how many were cut."""
    cut = done = 0
    kept: list[F32] = []
    while chunk := list(islice(source, TEXTS_AT_ONCE)):
        answer = ask(chunk)
        cut += sum(used < tokens for used, tokens in zip(answer.tokens_used, answer.tokens, strict=True))
        if npy is None:
            _emit(chunk, answer)
        else:
            kept.append(answer.vectors)
        done += len(chunk)
        progress.update(done)
    if npy is not None:
        _save(npy, np.concatenate(kept) if kept else ask([""]).vectors[:0])
    return cut


def _emit(texts: list[str], answer: Embedded) -> None:
    rows = zip(texts, answer.vectors, answer.tokens, answer.tokens_used, strict=True)
    for text, vector, tokens, tokens_used in rows:
        # float32 prints shortest as itself: the decimal digits give the same bits back.
        numbers = [float(str(component)) for component in vector]
        output.emit(
            {
                "text": text,
                "vector": numbers,
                "tokens": tokens,
                "tokens_used": tokens_used,
                "model": answer.model,
                "fingerprint": answer.fingerprint,
            }
        )


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[bytes] | None]:
    """The file, found to be writable before anything is embedded. Raises typer.BadParameter where it is not."""
    if path is None:
        yield None
        return
    try:
        file = path.open("ab")  # what it holds is kept until there are vectors
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror or error}", param_hint="--npy") from error
    with file:
        yield file


def _save(file: IO[bytes], matrix: F32) -> None:
    file.truncate(0)
    np.save(file, matrix)
    file.flush()  # before it is told that the file is there
    path = file.name
    if output.as_json():
        output.emit({"file": path, "rows": matrix.shape[0], "dimensions": matrix.shape[1]})
    else:
        output.note(f"{path}: {matrix.shape[0]:,} vectors of {matrix.shape[1]} dimensions, float32")
