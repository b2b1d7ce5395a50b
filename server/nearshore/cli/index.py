"""nearshore index: files into a collection, through the server of the data folder or, without one, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nearshore.cli import kubernetes_job, output
from nearshore.cli.connection import serving_address
from nearshore.cli.engine import Engine
from nearshore.cli.indexing import (
    NoModelInCollectionError,
    Outcome,
    Rejects,
    Run,
    count_through,
    index_through_server,
    prepare_collection,
)
from nearshore.cli.progress import Progress, duration
from nearshore.cli.search import DEFAULT_COLLECTION
from nearshore.cli.session import session
from nearshore.client import Client
from nearshore.documents.limits import Limits
from nearshore.documents.names import model_name
from nearshore.documents.requests import CollectionInput
from nearshore.errors import CollectionNotFoundError
from nearshore.exit_codes import ExitCode
from nearshore.replica import Replica
from nearshore_indexer.jsonl import JsonLines
from nearshore_indexer.passages import TokenCounter
from nearshore_indexer.plain_text import PlainText, Splitting
from nearshore_indexer.sinks import StoreSink
from nearshore_indexer.sources import Format, Reader, Source, check_sources

app = typer.Typer()

IN_CLUSTER = "In a cluster"
PASSAGE_TOKENS, OVERLAP_TOKENS = 200, 32
SPECIAL_TOKENS = 2  # [CLS] and [SEP] around every text
LIMITS = {"max_text_bytes", "max_metadata_keys", "max_metadata_bytes"}  # of one document
_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Job:
    """What to index, and how it is read."""

    sources: Sequence[Source]
    collection: str
    passage_tokens: int
    overlap_tokens: int
    timestamp_keys: Collection[str]

    def readers(self, max_tokens: int, count_tokens: TokenCounter) -> tuple[JsonLines, PlainText]:
        """Readers of both formats; max_tokens: what the model takes, special tokens included."""
        passage_tokens = min(self.passage_tokens, max_tokens - SPECIAL_TOKENS)
        sizes = session().settings.limits.model_dump(include=LIMITS)
        splitting = Splitting(passage_tokens, min(self.overlap_tokens, passage_tokens // 2), count_tokens)
        return JsonLines(Limits(**sizes), timestamp_keys=self.timestamp_keys), PlainText(splitting)


@app.command()
def index(  # noqa: PLR0913 -- each is an option
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(help="JSON lines (.jsonl) or text (.txt, .md, .rst), also gzipped (.gz); - is standard input."),
    ] = None,
    *,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Where to put it; created if it is not there.")
    ] = DEFAULT_COLLECTION,
    file_format: Annotated[
        Format, typer.Option("--format", help="auto goes by the name, for - by the first character.")
    ] = Format.AUTO,
    passage_tokens: Annotated[
        int, typer.Option(help="Longest passage that text is split into, in tokens of the model.", min=16)
    ] = PASSAGE_TOKENS,
    overlap_tokens: Annotated[
        int, typer.Option(help="How much of a passage the next one repeats, at most.", min=0)
    ] = OVERLAP_TOKENS,
    timestamp: Annotated[
        list[str] | None,
        typer.Option(help="Metadata key whose RFC 3339 strings become timestamps; may be repeated.", metavar="KEY"),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Write what is refused, with reasons, as JSON lines.", metavar="FILE")
    ] = None,
    kubernetes: Annotated[
        bool,
        typer.Option("--kubernetes", help="Run as a Job in the cluster of KUBECONFIG.", rich_help_panel=IN_CLUSTER),
    ] = False,
    release: Annotated[
        str, typer.Option(help="Release of the chart that keeps the Job's template.", rich_help_panel=IN_CLUSTER)
    ] = kubernetes_job.RELEASE,
    namespace: Annotated[
        str | None, typer.Option(help="Of the release. Default: the context's.", rich_help_panel=IN_CLUSTER)
    ] = None,
    shards: Annotated[
        int, typer.Option(help="Pods that share the work.", min=1, max=1_000, rich_help_panel=IN_CLUSTER)
    ] = 1,
    claim: Annotated[
        str | None,
        typer.Option(
            help="PersistentVolumeClaim with the files, mounted at /sources; relative FILES lie below.",
            metavar="NAME",
            rich_help_panel=IN_CLUSTER,
        ),
    ] = None,
    attach: Annotated[
        str | None,
        typer.Option(help="Follow a Job that is there already.", metavar="JOB", rich_help_panel=IN_CLUSTER),
    ] = None,
) -> None:
    """Index files: read, split, embed, write, and wait until a search finds them.

    JSON lines hold an object each: id (or _id) and text, and optionally title, parent_id and metadata. A text file
    becomes passages path#1, path#2, ... with parent_id path; passages that a shorter version no longer has are removed.
    What did not change is not embedded again, so a run that was cut short is repeated by running it again.
    """
    if kubernetes:
        placement = kubernetes_job.Placement(release, namespace, shards, claim)
        kubernetes_job.run(files or (), attach, placement, context)
        return
    if not files:
        raise typer.BadParameter("name files to index", param_hint="FILES")
    job = Job(check_sources(files, file_format), collection, passage_tokens, overlap_tokens, frozenset(timestamp or ()))
    told = Rejects(rejects, job.sources)
    address = serving_address()
    with told as refused:
        outcome = _through_server(job, refused, address) if address else _without_server(job, refused)
    _report(outcome, collection, address)
    if outcome.rejected:
        raise typer.Exit(ExitCode.REJECTED)


def _through_server(job: Job, rejects: Rejects, address: str) -> Outcome:
    output.note(f"Indexing through the server at {address}.")
    with Client(address) as client:
        prepare_collection(client, job.collection)
        max_tokens = client.tokenize([""]).max_tokens
        json_lines, plain_text = job.readers(max_tokens, partial(count_through, client))
        run = Run(Reader(job.sources, {Format.JSONL: json_lines, Format.TEXT: plain_text}), rejects)
        outcome = _interruptible(
            run, lambda: index_through_server(run, address, job.collection, plain_text.passage_counts)
        )
    _warn_ignored(json_lines)
    return outcome


def _without_server(job: Job, rejects: Rejects) -> Outcome:
    settings = session().settings
    output.note(f"No server has {settings.data_dir} open; indexing in this process.")
    with Engine(settings) as engine:
        _wait_loaded(engine)

        def count_tokens(texts: Sequence[str]) -> list[int]:
            return [len(each.ids) - SPECIAL_TOKENS for each in engine.embedder.tokenize(texts)]

        json_lines, plain_text = job.readers(engine.embedder.max_tokens, count_tokens)
        run = Run(Reader(job.sources, {Format.JSONL: json_lines, Format.TEXT: plain_text}), rejects)

        async def go() -> Outcome:
            replica = await _collection(engine, job.collection)
            sink = StoreSink(engine.parts.documents, replica, engine.check)
            outcome = await run.into(sink, plain_text.passage_counts)
            await _wait_built(engine, replica)
            return outcome

        outcome = _interruptible(run, lambda: asyncio.run(go()))
        _warn_ignored(json_lines)
        if outcome.tally.documents:
            output.note("Writing the snapshot that the next server starts from.")
    return outcome


def _interruptible(run: Run, go: Callable[[], Outcome]) -> Outcome:
    """Let Ctrl-C end the run with a word on what is done already."""
    try:
        return go()
    except KeyboardInterrupt:
        output.warn(
            f"interrupted: {run.tally.documents:,} documents are written and stay. "
            "Run the same command again to go on: what is there is not embedded again."
        )
        raise


async def _collection(engine: Engine, name: str) -> Replica:
    """The collection, created with the model if it is not there. Raises NoModelInCollectionError."""
    try:
        replica = await asyncio.to_thread(engine.replicas.get, name)
    except CollectionNotFoundError:
        model = model_name(engine.embedder.bundle.manifest.name)
        await engine.parts.collections.create(CollectionInput(name, model=model))
        output.note(f"Created the collection {name} with the model {engine.embedder.bundle.manifest.name}.")
        return engine.replicas.get(name)
    if not replica.collection.spec.model:
        raise NoModelInCollectionError(name)
    return replica


def _wait_loaded(engine: Engine) -> None:
    with Progress("loading", "rows") as progress:
        while not engine.replicas.ready.wait(_PAUSE_S):
            engine.check()
            loading = engine.replicas.progress()
            share = sum(each.share for each in loading) / max(len(loading), 1)
            progress.update(sum(each.rows_read for each in loading), share)


async def _wait_built(engine: Engine, replica: Replica) -> None:
    """Wait for the graph, so that the snapshot holds it."""
    with Progress("building the index", "") as progress:
        while replica.status().building:
            engine.check()
            progress.update()
            await asyncio.sleep(_PAUSE_S)


def _warn_ignored(json_lines: JsonLines) -> None:
    for name, lines in sorted(json_lines.ignored_fields.items()):
        output.warn(f"the field {name!r} was ignored ({lines:,} times); put it into metadata to keep it")


def _report(outcome: Outcome, collection: str, address: str) -> None:
    tally = outcome.tally
    rate = tally.documents / max(outcome.searchable_s, 1e-9)
    if output.as_json():
        figures = {
            "collection": collection,
            "documents": tally.documents,
            "embedded": tally.embedded,
            "unchanged": tally.documents - tally.embedded,
            "truncated": tally.truncated,
            "removed": tally.removed,
            "rejected": outcome.rejected,
            "written_s": outcome.written_s,
            "searchable_s": outcome.searchable_s,
            "documents_per_s": rate,
            "server": address,
        }
        output.emit(figures)
        return
    parts = [f"{tally.documents:,} documents in {collection}, searchable after {duration(outcome.searchable_s)}"]
    parts.append(f"{rate:,.0f}/s")
    parts.append(f"{tally.embedded:,} embedded, {tally.documents - tally.embedded:,} unchanged")
    if tally.truncated:
        parts.append(f"{tally.truncated:,} cut at the model's maximum")
    if tally.removed:
        parts.append(f"{tally.removed:,} stale passages removed")
    if outcome.rejected:
        parts.append(f"{outcome.rejected:,} refused")
    output.show("; ".join(parts))
