"""The bundle that the settings name and the engine over it, in the precision that they name or in another."""

import subprocess
import sys
from pathlib import Path

from nearshore.bundle import Bundle, Precision, load_bundle
from nearshore.cli.exporting import CHECKPOINTS
from nearshore.embedding import Embedder
from nearshore.export.obtain import obtain
from nearshore.served_models import open_embedder
from nearshore.settings import load_settings


def served() -> Bundle:
    """The bundle as a server uses it."""
    settings = load_settings()
    return load_bundle(settings.model_dir / settings.embedding.model, Precision(settings.embedding.precision))


def with_int8() -> Bundle:
    """The bundle; its int8 graph is made where it has none."""
    settings = load_settings()
    name = settings.embedding.model
    command = [sys.executable, "-m", "nearshore", "model", "get", name, "--int8"]
    subprocess.run(command, check=True, stdout=sys.stderr)  # standard output is for figures
    return load_bundle(settings.model_dir / name)


def checkpoint() -> Path:
    """The folder of the checkpoint that the bundle is made of; fetched where it is not there."""
    settings = load_settings()
    return obtain(settings.embedding.model, "auto", settings.model_dir / CHECKPOINTS)


def open_engine(precision: Precision | None = None, *, share_in_flight: bool = True) -> Embedder:
    """The engine as a server opens it, but for a queue that refuses nothing; None: in the precision of the settings."""
    settings = load_settings()
    changed: dict[str, object] = {"max_queued_tokens": 1 << 30, "share_in_flight": share_in_flight}
    if precision is not None:
        changed["precision"] = precision.value
    return open_embedder(settings.model_copy(update={"embedding": settings.embedding.model_copy(update=changed)}))
