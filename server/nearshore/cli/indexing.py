"""One indexing run, through a server or without one: progress, what was refused, and the figures at the end."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, Self, TextIO

import typer

from nearshore.cli import output
from nearshore.cli.connection import default_model
from nearshore.cli.progress import Progress
from nearshore.client import AsyncClient, Client, Retries, Tokenized
from nearshore.documents.errors import ModelNotServedError
from nearshore.documents.limits import Limits
from nearshore.errors import AlreadyExistsError, CollectionNotFoundError, PreconditionError
from nearshore_indexer.batches import batches
from nearshore_indexer.building import Builder
from nearshore_indexer.entries import Rejection
from nearshore_indexer.jsonl import JsonLines
from nearshore_indexer.pipeline import Pipeline, Sink, Tally, remove_stale
from nearshore_indexer.server_sink import ServerSink
from nearshore_indexer.sources import STDIN, Format, FormatReader, Reader, Source, check_sources

BATCH_DOCUMENTS = 500
_CALL_CHARACTERS = 1 << 18  # of one Tokenize call: at most 1 MiB, the default of limits.max_text_bytes
BATCH_BYTES = 16 << 20
CALL_TIMEOUT_S = 600.0  # a thousand long texts wait behind eleven thousand others
SHOWN_REJECTIONS = 20
TELL_ALL = "-"  # as the file of --rejects: where nothing but the log stays, as in a pod
# A server that restarts is not noticed; longer absence, and overload, are the pipeline's to wait out and to tell.
_SHORT_RETRIES = Retries(away_s=2.0, overload_s=0.0)


class NoModelInCollectionError(PreconditionError):
    """Text cannot be indexed into a collection of callers' own vectors."""

    reason = "NO_MODEL"

    def __init__(self, collection: str) -> None:
        """collection: its bare name."""
        super().__init__(
            f"The collection {collection!r} has no model, so text cannot be indexed into it.",
            "Name another collection; one that does not exist is created with the model.",
        )


class Rejects:
    """Reports what was refused: the first few on standard error, all of it there or in a file if that is asked for."""

    def __init__(self, path: Path | None, sources: Sequence[Source] = ()) -> None:
        """path: of the file of JSON lines, which is none of the sources; TELL_ALL: standard error. Use in a with block.

        Raises typer.BadParameter if it is one: the run would read its own rejections without end.
        """
        self.count = 0
        self._tell_all = path == Path(TELL_ALL)
        self._path = path = None if self._tell_all else path
        for source in sources:
            if path is not None and _same_file(path, source.file):
                raise typer.BadParameter(
                    f"{path} is also an input ({source.file}) and would be overwritten: name another file",
                    param_hint="--rejects",
                )
        self._opened = ExitStack()
        self._file: TextIO | None = None

    def __call__(self, rejection: Rejection) -> None:
        """Report one. Raises OSError when the file cannot be written."""
        self.count += 1
        if self._tell_all or self.count <= SHOWN_REJECTIONS:
            output.warn(f"{rejection.place}: {rejection.problem}")
        elif self.count == SHOWN_REJECTIONS + 1:
            hint = f"all of them go to {self._path}" if self._path else "--rejects FILE collects all of them"
            output.warn(f"more is refused; {hint}")
        if self._file is not None:
            self._write(self._file, rejection)

    def __enter__(self) -> Self:
        """Create the file, or empty it. Raises typer.BadParameter where that cannot be done."""
        if self._path is not None:
            try:
                self._file = self._opened.enter_context(self._path.open("w", encoding="utf-8"))
            except OSError as error:
                problem = f"{self._path} cannot be written: {error.strerror or error}"
                raise typer.BadParameter(problem, param_hint="--rejects") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._opened.close()

    @staticmethod
    def _write(file: TextIO, rejection: Rejection) -> None:
        place = rejection.place
        record = {"file": place.file, "line": place.line, "problem": rejection.problem, "id": rejection.id}
        file.write(json.dumps({**record, "source": rejection.source}) + "\n")
        file.flush()


def _same_file(path: Path, source: str) -> bool:
    """Whether both are one file, through links too; devices do not count: a terminal may well be both."""
    try:
        status = path.stat()
        read = Path(source).stat() if source != STDIN else os.fstat(sys.stdin.fileno())
    except OSError:
        return False
    return os.path.samestat(status, read) and not stat.S_ISCHR(status.st_mode)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did and how long it took."""

    tally: Tally
    rejected: int
    written_s: float  # from the first byte read to the last durable write
    searchable_s: float  # until a search could find all of it


class Run:
    """One run over a reader's documents; its tally stays readable when the run is cut short."""

    def __init__(self, reader: Reader, rejects: Rejects) -> None:
        """reader: what to index; rejects: who is told what is refused."""
        self.tally = Tally()
        self._reader = reader
        self._rejects = rejects
        self._started = time.monotonic()

    async def into(self, sink: Sink, passage_counts: dict[str, int]) -> Outcome:
        """Write everything and wait until it can be found; then remove passages that shortened files left behind.

        passage_counts: filled by the reader while it reads text files.
        """
        with Progress("indexing", "documents") as progress:

            def report(tally: Tally) -> None:
                total = self._reader.total_bytes
                progress.update(tally.documents, tally.source_bytes / total if total else None)

            source = batches(self._reader, size=BATCH_DOCUMENTS, max_bytes=BATCH_BYTES, reject=self._rejects)
            await Pipeline(sink, self.tally, reject=self._rejects, report=report, warn=output.warn).run(source)
        written_s = time.monotonic() - self._started
        await sink.wait_searchable()
        searchable_s = time.monotonic() - self._started
        if passage_counts:
            self.tally.removed = await remove_stale(sink, passage_counts)
        return Outcome(self.tally, self._rejects.count, written_s, searchable_s)


def json_lines() -> FormatReader:
    """Who reads JSON lines, with the limits that a server has by default."""
    return JsonLines(Builder(Limits()))


def json_lines_reader(file: str, lines: FormatReader | None = None) -> Reader:
    """A reader of one file of JSON lines, by json_lines() unless by another. Raises as check_sources."""
    return Reader(check_sources([file], Format.JSONL), {Format.JSONL: lines or json_lines()})


def prepare_collection(client: Client, name: str) -> str:
    """Create the collection, with the server's model, unless it is there.

    Returns the name of its model. Raises NoModelInCollectionError, and what the server refuses.
    """
    try:
        info = client.get_collection(name)
    except CollectionNotFoundError:
        try:
            info = client.create_collection(name, model=default_model(client))
        except AlreadyExistsError:  # somebody else was quicker
            info = client.get_collection(name)
        else:
            output.note(f"Created the collection {name} with the model {info.model}.")
    return info.model or _no_model(name)


def model_to_be(client: Client, name: str) -> str:
    """The model of the collection, or the one that it will be created with. Raises NoModelInCollectionError."""
    try:
        return client.get_collection(name).model or _no_model(name)
    except CollectionNotFoundError:
        return default_model(client)


def _no_model(collection: str) -> NoReturn:
    raise NoModelInCollectionError(collection)


def counting_model(client: Client, model: str) -> Tokenized:
    """The model by which texts for a collection are cut, as it cuts an empty one.

    That is the collection's own, or the server's default where none of that name is served: it may be called otherwise
    by now.
    """
    try:
        return client.tokenize([""], model=model)
    except ModelNotServedError:
        return client.tokenize([""])


def index_through_server(
    run: Run, target: str, collection: str, passage_counts: dict[str, int] | None = None
) -> Outcome:
    """Index into a collection that is there, through the server at `target`."""

    async def go() -> Outcome:
        async with AsyncClient(target, timeout_s=CALL_TIMEOUT_S, retries=_SHORT_RETRIES) as client:
            sink = ServerSink(client, collection, target, output.warn)
            return await run.into(sink, passage_counts if passage_counts is not None else {})

    return asyncio.run(go())


def count_through(client: Client, model: str, texts: Sequence[str]) -> list[int]:
    """Tokens of each text as a model of the server counts them, without the special tokens around it."""
    counts: list[int] = []
    tokenize = partial(client.tokenize, model=model, prompt="")
    (around,) = (len(each.ids) for each in tokenize([""]).texts)
    while len(counts) < len(texts):
        waiting = texts[len(counts) : len(counts) + BATCH_DOCUMENTS]
        fitting = sum(characters <= _CALL_CHARACTERS for characters in itertools.accumulate(map(len, waiting)))
        counts += [len(each.ids) - around for each in tokenize(waiting[: fitting or 1]).texts]
    return counts
