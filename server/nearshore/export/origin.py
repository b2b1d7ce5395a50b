"""Remembers, inside a fetched checkpoint folder, where it came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nearshore.bundle import Source, content_digest, file_digest

_FILE = "nearshore-origin.json"


def write_origin(folder: Path, *, kind: Literal["hub", "pypi"], location: str, revision: str) -> None:
    """Note where the checkpoint in this folder was fetched from."""
    content = {"kind": kind, "location": location, "revision": revision}
    (folder / _FILE).write_text(json.dumps(content), encoding="utf-8")


def read_source(folder: Path, weights: Sequence[Path]) -> Source:
    """Where this checkpoint came from, by its note or else as a local folder, with the digest of its weights."""
    noted = folder / _FILE
    digest = _digest(weights)
    if noted.is_file():
        return Source(**json.loads(noted.read_text(encoding="utf-8")), sha256=digest)
    return Source(kind="folder", location=folder.resolve().name, revision="", sha256=digest)


def _digest(weights: Sequence[Path]) -> str:
    """Of one file, its SHA-256; of several, that of their names and digests."""
    digests = {path.name: file_digest(path) for path in weights}
    return content_digest(digests) if len(digests) > 1 else next(iter(digests.values()))
