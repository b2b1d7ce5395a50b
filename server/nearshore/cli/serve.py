"""nearshore serve: run the server until it is told to stop."""

from __future__ import annotations

from typing import Annotated

import typer

from nearshore.app import run
from nearshore.cli import output
from nearshore.cli.session import session

app = typer.Typer()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. Default: 50051.")] = None,
    model: Annotated[str | None, typer.Option(help="Bundle to serve. Default: all-MiniLM-L6-v2.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that run the model; 0: one a core.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json or console.")] = None,
) -> None:
    """Serve a data folder over gRPC. Stops orderly on SIGTERM and Ctrl-C.

    Without keys there is no protection: it listens on loopback unless --host says otherwise.
    """
    session().flags = {
        "server__host": host,
        "server__port": port,
        "embedding__model": model,
        "embedding__workers": workers,
        "log__level": log_level,
        "log__format": log_format or ("json" if output.as_json() else None),
    }
    raise typer.Exit(run(session().settings))
