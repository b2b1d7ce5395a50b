"""What `nearshore eval` says of the judged corpora, searched exactly."""

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks import corpora
from nearshore.exit_codes import ExitCode

JUDGED = ("cranfield", "med", "adi")
_FILES = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels.tsv"}


def evaluate(corpus: str, *, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The figures of one corpus; environment: NEARSHORE_... settings beside those of this process."""
    folder = corpora.require_folder() / corpus
    done = subprocess.run(
        [
            sys.executable, "-m", "nearshore", "--json", "eval", "--exact",
            *(f"--{part}={folder / file}" for part, file in _FILES.items()),
        ],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode not in {ExitCode.OK, ExitCode.REJECTED}:  # two documents of cranfield have no text
        raise subprocess.CalledProcessError(done.returncode, done.args)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
