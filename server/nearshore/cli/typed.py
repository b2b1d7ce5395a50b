"""Which options of a command stand on its command line: a default, or a setting, is not what somebody asked for."""

from __future__ import annotations

import typer


def typed(context: typer.Context) -> dict[str, str]:
    """The command's parameters that its command line gives: name, and the option (or argument) as it is spelled."""
    sources = {str(each.name): context.get_parameter_source(str(each.name)) for each in context.command.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    return {str(each.name): max(each.opts, key=len) for each in context.command.params if each.name in given}
