"""nearshore collection: create, list, show and delete collections through a server."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from nearshore.cli import output
from nearshore.cli.connection import INT32, connect, default_model
from nearshore.client import CollectionInfo, IndexKind, Metric

app = typer.Typer(help="Create, list, show and delete collections.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9, - and _.")]


@app.command()
def create(
    name: Name,
    model: Annotated[str, typer.Option(help="Model that embeds its documents. Default: the server's.")] = "",
    dimensions: Annotated[
        int, typer.Option(help="Instead of a model: the width of your own vectors.", min=0, max=INT32)
    ] = 0,
    metric: Annotated[Metric, typer.Option(help="How closeness is measured.")] = Metric.COSINE,
    index: Annotated[IndexKind, typer.Option(help="auto: exact while small, then a graph.")] = IndexKind.AUTO,
) -> None:
    """Create an empty collection."""
    with connect() as client:
        if not model and not dimensions:
            model = default_model(client)
        created = client.create_collection(name, model=model, dimensions=dimensions, metric=metric, index_kind=index)
    _show(created)


@app.command(name="list")
def list_() -> None:
    """List the collections by name."""
    with connect() as client:
        found = client.list_collections()
    if output.as_json():
        output.emit([as_dict(each) for each in found])
        return
    if not found:
        output.note("There are no collections. `nearshore index FILE...` makes one.")
        return
    rows = [
        (
            each.name,
            f"{each.status.document_count:,}",
            each.model or "-",
            each.precision or "-",
            each.dimensions,
            each.metric.value,
        )
        for each in found
    ]
    columns = ("collection", "documents", "model", "precision", "dimensions", "metric")
    output.show(output.table(columns, rows, right=("documents", "dimensions")))


@app.command()
def show(name: Name) -> None:
    """Show what a collection holds and how it is indexed."""
    with connect() as client:
        _show(client.get_collection(name))


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a collection and all its documents."""
    with connect() as client:
        found = client.get_collection(name)
        if not yes:
            documents = f"{found.status.document_count:,} documents"
            output.confirm(f"Delete {output.visible(found.name)} and its {documents} for good?")
        client.delete_collection(name)
    if output.as_json():
        output.emit({"deleted": name, "document_count": found.status.document_count})
    else:
        output.note(f"Deleted {name} ({found.status.document_count:,} documents).")


def as_dict(info: CollectionInfo) -> dict[str, Any]:
    """A collection for JSON."""
    return asdict(info)


def _show(info: CollectionInfo) -> None:
    if output.as_json():
        output.emit(as_dict(info))
        return
    status = info.status
    pairs: list[tuple[str, object]] = [
        ("collection", info.name),
        ("documents", f"{status.document_count:,}"),
        ("model", info.model or "none: callers bring vectors"),
        ("precision", info.precision or "-"),
        ("fingerprint", info.fingerprint or "-"),
        ("dimensions", info.dimensions),
        ("metric", info.metric.value),
        ("index", f"{info.index_kind.value}{', building' if status.building else ''}"),
        ("rows in the graph", f"{status.sealed_row_count:,}"),
        ("rows scanned exactly", f"{status.tail_row_count:,}"),
        ("dead rows", f"{status.dead_row_count:,}"),
        ("index generation", status.index_generation),
        ("position", f"{status.read_state.position} of {status.read_state.head}"),
        ("created", f"{info.created_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    output.show(output.facts(pairs))
