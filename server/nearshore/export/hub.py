"""Fetches a checkpoint from the Hugging Face Hub, or the mirror that HF_ENDPOINT names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from nearshore.export.catalogue import CHECKPOINT_FILES, CheckpointUnavailableError
from nearshore.export.origin import write_origin
from nearshore.model_names import KnownModel

_ANSWER_TIMEOUT_S = 5.0


def fetch_from_hub(name: str, model: KnownModel, folder: Path) -> None:
    """Download the checkpoint's files into an empty folder and note their commit.

    Raises CheckpointUnavailableError: within seconds when the hub does not answer at all.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        # Asked first and with a time limit, because snapshot_download has none for a host that stays silent.
        info = HfApi(endpoint=endpoint).model_info(model.repository, revision=model.revision, timeout=_ANSWER_TIMEOUT_S)
        commit = str(info.sha)
        snapshot_download(
            model.repository,
            revision=commit,
            local_dir=folder,
            allow_patterns=list(CHECKPOINT_FILES),
            endpoint=endpoint,
            etag_timeout=_ANSWER_TIMEOUT_S,
        )
    except Exception as error:  # whatever its HTTP client, which has changed before, may raise
        detail = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointUnavailableError(name, f"Hugging Face Hub, {model.repository}: {detail[0]}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's bookkeeping
    write_origin(folder, kind="hub", location=model.repository, revision=commit)
