"""What the flags about text beyond a model's maximum ask for."""

from __future__ import annotations

import typer

from nearshore.client import EmbedTruncation


def truncation_of(*, cut_start: bool, refuse_long: bool) -> EmbedTruncation:
    """As calls of the client name it. Raises BadParameter for both flags."""
    if cut_start and refuse_long:
        raise typer.BadParameter("--cut-start and --refuse-long exclude each other")
    return "refuse" if refuse_long else "cut_start" if cut_start else "cut_end"
