"""The bundle that the settings name, for benchmarks that need both of its precisions."""

import subprocess
import sys

from nearshore.bundle import Bundle, load_bundle
from nearshore.embedding import Embedder
from nearshore.settings import EmbeddingSettings, load_settings


def with_int8() -> Bundle:
    """The bundle; its int8 graph is made where it has none."""
    settings = load_settings()
    name = settings.embedding.model
    command = [sys.executable, "-m", "nearshore", "model", "get", name, "--int8"]
    subprocess.run(command, check=True, stdout=sys.stderr)  # standard output is for figures
    return load_bundle(settings.model_dir / name)


def open_engine(bundle: Bundle) -> Embedder:
    """The engine as a server opens it, one worker a core, but for a queue that refuses nothing."""
    defaults = EmbeddingSettings()
    return Embedder.open(bundle, max_run_tokens=defaults.max_run_tokens, max_queued_tokens=1 << 30)
