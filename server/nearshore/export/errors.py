"""What can be wrong with a checkpoint, and with the folder that its bundle goes to."""

from __future__ import annotations

import os
from pathlib import Path

from nearshore.bundle import Precision
from nearshore.errors import NotFoundError, PreconditionError, UnavailableError

_OTHER_MODEL = (
    "Name the checkpoint that it was made of, with --lower-case or --cased if it was made so; get the other model "
    "under another name; or put it in the place of this one with --force, and index the documents of its collections "
    "into new ones."
)
_OTHER_RECIPE = (
    "Products in 8 bits are made by another recipe now. Leave the bundle as it is, or export it with --force and index "
    "the documents of collections of int8 into new ones; those of fp32 stay as they are."
)


class UnusableCheckpointError(PreconditionError):
    """The checkpoint is broken, or not of a kind that can be exported."""

    reason = "CHECKPOINT_UNUSABLE"

    def __init__(self, folder: Path, detail: str, remedy: str = "", *, flags: tuple[str, ...] = ()) -> None:
        """folder: of the checkpoint; detail: a clause that names file, tensor or setting and what is wrong with it.

        flags: options of `nearshore model get` without which it might be exported.
        """
        self.folder, self.detail, self.flags = folder, detail, flags
        super().__init__(
            f"The checkpoint in {folder} cannot be exported: {detail}.",
            remedy or "Use a complete checkpoint: config.json, model.safetensors and tokenizer.json of one model.",
            checkpoint=folder,
        )


def absent(folder: Path, file: str) -> str:
    """What UnusableCheckpointError says of a file that is_file() does not know."""
    return f"{file} is not a regular file" if (folder / file).exists() else f"{file} is missing"


class CheckpointNotFoundError(NotFoundError):
    """The folder that a checkpoint is to be taken from does not exist."""

    reason = "CHECKPOINT_NOT_FOUND"

    def __init__(self, folder: Path) -> None:
        """folder: as given."""
        super().__init__(f"There is no such folder: {folder}.", "Check its name.", folder=str(folder))


class PlaceTakenError(PreconditionError):
    """A folder that is no bundle, or holds other files or the checkpoint itself, lies where a bundle is to go."""

    reason = "BUNDLE_PLACE_TAKEN"

    def __init__(self, folder: Path, detail: str) -> None:
        """folder: where the bundle is to go; detail: a clause that says what is there."""
        super().__init__(
            f"A bundle cannot take the place of {folder}, which would be deleted: {detail}.",
            "Nothing was changed. Give the bundle another name, or move that out of the model folder first.",
            folder=folder,
        )


class LostLinkError(PreconditionError):
    """A bundle is to go where a link lies that leads to nothing."""

    reason = "BUNDLE_LINK_LOST"

    def __init__(self, link: Path) -> None:
        """link: where the bundle is to go."""
        super().__init__(
            f"{link} is a link to {os.path.realpath(link)}, which is not there.",
            "Nothing was changed. Bring back what it leads to, such as a disk that is not mounted; or make a folder "
            "there for the bundle; or delete the link.",
            folder=link,
        )


class OtherVectorsError(PreconditionError):
    """An export would put other vectors in the place of those that a bundle gives."""

    reason = "OTHER_VECTORS"

    def __init__(self, folder: Path, detail: str, precision: Precision = Precision.FP32) -> None:
        """folder: of the bundle; detail: a clause that says what would be other; precision: of the vectors."""
        super().__init__(
            f"The bundle {folder} stays: {detail}.",
            _OTHER_MODEL if precision is Precision.FP32 else _OTHER_RECIPE,
            folder=folder,
        )


class WeightsFileError(Exception):
    """A file of weights cannot be read; the text is a clause that says why."""


class ModelFolderReadOnlyError(UnavailableError):
    """The model folder cannot be written."""

    reason = "MODEL_FOLDER_READ_ONLY"

    def __init__(self, folder: Path, detail: str) -> None:
        """folder: that the bundles lie in; detail: what the system said."""
        super().__init__(
            f"The model folder {folder} cannot be written: {detail}.",
            "Make it a folder that the user who runs nearshore may write, or choose another: model_dir "
            "(--model-dir, NEARSHORE_MODEL_DIR).",
            folder=folder,
        )
