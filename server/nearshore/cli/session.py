"""What holds for one run of the command line: the global options and the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nearshore.settings import Settings, load_settings

FIXED: dict[str, Any] = {}
"""Settings of this process, whatever options, environment and file say."""


@dataclass
class Session:
    """The global options of one run."""

    config: Path | None = None
    data_dir: Path | None = None
    model_dir: Path | None = None
    server: str | None = None
    debug: bool = False
    flags: dict[str, Any] = field(default_factory=dict)  # settings that a command's own options override

    @cached_property
    def settings(self) -> Settings:
        """Options, environment, file and defaults combined. Raises InvalidSettingsError."""
        return load_settings(self.config, data_dir=self.data_dir, model_dir=self.model_dir, **{**self.flags, **FIXED})


_current = Session()


def session() -> Session:
    """The session of this run."""
    return _current


def begin(new: Session) -> None:
    """Make `new` the session of this run."""
    global _current  # noqa: PLW0603 -- one process is one run; commands get nothing else passed to them
    _current = new
