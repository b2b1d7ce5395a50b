"""What can be wrong with a checkpoint."""

from __future__ import annotations

from pathlib import Path

from nearshore.errors import PreconditionError


class UnusableCheckpointError(PreconditionError):
    """The checkpoint is broken, or not of a kind that can be exported."""

    reason = "CHECKPOINT_UNUSABLE"

    def __init__(self, folder: Path, detail: str, remedy: str = "") -> None:
        """folder: of the checkpoint; detail: a clause that names file, tensor or setting and what is wrong with it."""
        super().__init__(
            f"The checkpoint in {folder} cannot be exported: {detail}.",
            remedy or "Use a complete checkpoint: config.json, model.safetensors and tokenizer.json of one model.",
            checkpoint=folder,
        )
