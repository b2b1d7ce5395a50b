"""nearshore delete: documents out of a collection, by id or by filter, through a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from nearshore.cli import output
from nearshore.cli.connection import connect
from nearshore.documents.limits import Limits

app = typer.Typer()


@app.command()
def delete(
    collection: Annotated[str, typer.Argument(help="Where they are.")],
    *,
    id: Annotated[  # noqa: A002 -- the API's word
        list[str] | None, typer.Option("--id", help="Id of a document; may be repeated.", metavar="ID")
    ] = None,
    filter: Annotated[  # noqa: A002 -- the API's word
        str | None,
        typer.Option(
            "--filter",
            "-f",
            help="""All documents that match, as in: _parent_id = "notes/old.md".""",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, where a filter says what to delete.")] = False,
) -> None:
    """Delete documents. Needs a server: start one with `nearshore serve`.

    The passages of a text file have its path, as `nearshore index` was told it, as their parent: a file that is gone
    leaves nothing behind after --filter '_parent_id = "path"'. To delete all, see nearshore collection delete.
    """
    if (id is None) == (filter is None) or (filter is not None and not filter.strip()):
        raise typer.BadParameter("give either --id or a --filter that says something")
    ids = list(dict.fromkeys(id or ()))
    with connect() as client:
        if filter is None:
            deleted = sum(client.delete(collection, ids=some).deleted_count for some in _batches(ids))
        else:
            if not yes:
                found = client.count(collection, filter=filter)
                output.confirm(f"Delete {_documents(found)} of {output.visible(collection)} for good?")
            deleted = client.delete(collection, filter=filter).deleted_count
    if output.as_json():
        output.emit({"collection": collection, "deleted_count": deleted})
    else:
        absent = f"; {len(ids) - deleted:,} of the {len(ids):,} ids were not there" if deleted < len(ids) else ""
        output.note(f"Deleted {_documents(deleted)} of {collection}{absent}.")


def _batches(ids: list[str]) -> Iterator[list[str]]:
    """As many at once as a server takes by default."""
    most = Limits().max_documents
    return (ids[start : start + most] for start in range(0, len(ids), most))


def _documents(count: int) -> str:
    return f"{count:,} document{'' if count == 1 else 's'}"
