"""nearshore index: files into a collection, through a server, or in this process into a store that it opens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nearshore.cli import output
from nearshore.cli.connection import serving_address
from nearshore.cli.index_ways import Job, into_folder, into_store, through_server
from nearshore.cli.indexing import Outcome, Rejects
from nearshore.cli.interrupts import ending_in_order
from nearshore.cli.passage_sizes import OVERLAP_TOKENS, PASSAGE_TOKENS, PassageSizes
from nearshore.cli.progress import duration
from nearshore.cli.search import DEFAULT_COLLECTION
from nearshore.cli.session import session
from nearshore.cli.typed import typed
from nearshore.exit_codes import ExitCode
from nearshore_indexer.columns import USUAL, Columns
from nearshore_indexer.shards import WHOLE, InvalidShardError, Shard, parse_shard
from nearshore_indexer.sources import STDIN, Format, check_sources

app = typer.Typer()

IN_CLUSTER = "In a cluster"
ONLY_IN_CLUSTER = {"release", "namespace", "shards", "claim", "attach"}


@app.command()
def index(  # noqa: PLR0913 -- each is an option
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="JSON lines (.jsonl), CSV (.csv, .tsv), Parquet (.parquet), Markdown (.md) or text (.txt, .rst), "
            "all but Parquet also gzipped (.gz); a folder stands for those below it, - for standard input; a text that "
            "comes there is named by its content: stdin- and 12 digits of its SHA-256."
        ),
    ] = None,
    *,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Where to put it; created if it is not there.")
    ] = DEFAULT_COLLECTION,
    store: Annotated[
        str | None,
        typer.Option(
            help="PostgreSQL to write to without a server; rather set NEARSHORE_STORE__URL: others see a command line.",
            metavar="URL",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Index this part of the input: I from 0 to N - 1; auto takes I from JOB_COMPLETION_INDEX.",
            metavar="I/N",
        ),
    ] = None,
    file_format: Annotated[
        Format, typer.Option("--format", help="auto goes by the name, for - by the first character.")
    ] = Format.AUTO,
    id_column: Annotated[str, typer.Option(help="Column, or field of JSON lines, that holds the id.")] = USUAL.id,
    text_column: Annotated[str, typer.Option(help="Column or field that holds the text.")] = USUAL.text,
    title_column: Annotated[str, typer.Option(help="Column or field that holds the title.")] = USUAL.title,
    parent_column: Annotated[str, typer.Option(help="Column or field that holds parent_id.")] = USUAL.parent_id,
    passage_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest passage that text is split into, in tokens of the model, and in 32 characters for each. "
            f"Default: {PASSAGE_TOKENS}, or what the model takes.",
            min=16,
        ),
    ] = None,
    overlap_tokens: Annotated[
        int | None,
        typer.Option(
            help="How much of a passage the next one repeats, at most; half of it at most. "
            f"Default: {OVERLAP_TOKENS}, or half.",
            min=0,
        ),
    ] = None,
    timestamp: Annotated[
        list[str] | None,
        typer.Option(help="Metadata key whose RFC 3339 strings become timestamps; may be repeated.", metavar="KEY"),
    ] = None,
    number: Annotated[
        list[str] | None,
        typer.Option(help="Metadata key whose strings become numbers; may be repeated.", metavar="KEY"),
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(
            help="Write what is refused, with reasons, as JSON lines; - tells all of it, not only the first few, on "
            "standard error.",
            metavar="FILE",
        ),
    ] = None,
    kubernetes: Annotated[
        bool,
        typer.Option("--kubernetes", help="Run as a Job in the cluster of KUBECONFIG.", rich_help_panel=IN_CLUSTER),
    ] = False,
    release: Annotated[
        str, typer.Option(help="Release of the chart that keeps the Job's template.", rich_help_panel=IN_CLUSTER)
    ] = "nearshore",
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

    JSON lines hold an object each: id (or _id) and text, and optionally title, parent_id and metadata. CSV and Parquet
    hold the same as columns; all other columns become metadata, those of CSV as strings. A text file becomes passages
    path#1, path#2, ... with parent_id path, Markdown along its headings; passages that a shorter version no longer has
    are removed.
    What did not change is not embedded again, so a run that was cut short is repeated by running it again.
    With --store (store.url) it writes straight to PostgreSQL, and skips what is there already; the servers follow.
    Several processes share the work as --shard 0/4 to 3/4: together they write what one would.
    """
    if "" in (files or ()):  # as a path it is the current folder
        raise typer.BadParameter("a name is empty; the current folder is .", param_hint="FILES")
    if kubernetes:
        # Only here: the client of Kubernetes takes longer to import than thousands of unchanged documents to compare.
        from nearshore.cli import kubernetes_job  # noqa: PLC0415

        placement = kubernetes_job.Placement(release, namespace, shards, claim)
        kubernetes_job.run(files or (), attach, placement, context)
        return
    _refuse_unused(context)
    if not files:
        raise typer.BadParameter("name files to index", param_hint="FILES")
    if store is not None:
        session().flags["store__url"] = store
    job = Job(
        sources=check_sources(files, file_format, output.warn),
        collection=collection,
        shard=_shard(shard, files),
        columns=Columns(id_column, text_column, title_column, parent_column),
        timestamp_keys=frozenset(timestamp or ()),
        number_keys=frozenset(number or ()),
        sizes=_sizes(passage_tokens, overlap_tokens),
    )
    told = Rejects(rejects, job.sources)
    with told as refused, ending_in_order():
        outcome, address = _run(job, refused)
    _report(outcome, job, address)
    if outcome.rejected:
        raise typer.Exit(ExitCode.REJECTED)


def _refuse_unused(context: typer.Context) -> None:
    """Raises typer.BadParameter for an option that would change nothing: the run would write elsewhere than meant."""
    given = typed(context)
    for name, option in given.items():
        if name in ONLY_IN_CLUSTER:
            raise typer.BadParameter("means something only with --kubernetes", param_hint=option)
    if "store" in given and session().server is not None:
        raise typer.BadParameter("writes without a server: leave out --server, or this", param_hint=given["store"])


def _run(job: Job, rejects: Rejects) -> tuple[Outcome, str]:
    """What became of the run, and the address of the server that it went through, if it did."""
    if session().server is None and session().settings.store.url:
        return into_store(job, rejects), ""
    address = serving_address()
    return (through_server(job, rejects, address) if address else into_folder(job, rejects)), address


def _shard(named: str | None, files: list[str]) -> Shard:
    """Raises typer.BadParameter for what is no shard, and for a part of standard input."""
    try:
        shard = WHOLE if named is None else parse_shard(named, os.environ)
    except InvalidShardError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from error
    if shard.count > 1 and STDIN in files:
        raise typer.BadParameter("every shard reads all files, but standard input is read once", param_hint="--shard")
    return shard


def _sizes(passage_tokens: int | None, overlap_tokens: int | None) -> PassageSizes:
    """Raises typer.BadParameter for what suits no model, before anything is opened."""
    sizes = PassageSizes(passage_tokens, overlap_tokens)
    sizes.fitted(None)
    return sizes


def _report(outcome: Outcome, job: Job, address: str) -> None:
    tally = outcome.tally
    rate = tally.documents / max(outcome.searchable_s, 1e-9)
    if output.as_json():
        figures = {
            "collection": job.collection,
            "documents": tally.documents,
            "written": tally.written,
            "embedded": tally.embedded,
            "unchanged": tally.documents - tally.embedded,
            "truncated": tally.truncated,
            "removed": tally.removed,
            "rejected": outcome.rejected,
            "written_s": outcome.written_s,
            "searchable_s": outcome.searchable_s,
            "documents_per_s": rate,
            "shard": f"{job.shard.index}/{job.shard.count}",
            "server": address,
        }
        output.emit(figures)
        return
    parts = [f"{tally.documents:,} documents in {job.collection}, searchable after {duration(outcome.searchable_s)}"]
    parts.append(f"{rate:,.0f}/s")
    parts.append(f"{tally.embedded:,} embedded, {tally.documents - tally.embedded:,} unchanged")
    if tally.truncated:
        parts.append(f"{tally.truncated:,} cut at the model's maximum")
    if tally.removed:
        parts.append(f"{tally.removed:,} stale passages removed")
    if outcome.rejected:
        parts.append(f"{outcome.rejected:,} refused")
    output.show("; ".join(parts))
