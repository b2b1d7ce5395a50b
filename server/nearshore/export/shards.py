"""Tensors as Hugging Face lays them out: in a file of safetensors or of PyTorch, or in several that an index names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from nearshore.export.config import read_json
from nearshore.export.errors import UnusableCheckpointError, WeightsFileError, absent
from nearshore.export.pytorch.file import PyTorchFile
from nearshore.export.safetensors import SafetensorsFile
from nearshore.export.weights import COMPLETE
from nearshore.records import F32

WEIGHTS_FILE = "model.safetensors"
_INDEX = ".index.json"
_FILES = (WEIGHTS_FILE, "pytorch_model.bin")  # the first that is there counts, in one file or several
WEIGHT_FILES = tuple(name for file in _FILES for name in (file, file + _INDEX))
"""Of which a checkpoint has one, or more than one, in the order in which they are looked for."""
_CONVERT = f"Get its {WEIGHTS_FILE}, or save its state dict anew with torch.save() of PyTorch 1.6 or later."


class _File(Protocol):
    def names(self) -> Iterable[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def kind(self, name: str) -> str: ...
    def read(self, name: str) -> F32: ...


class ShardStore:
    """Open files of one checkpoint; implements weights.TensorStore."""

    def __init__(self, folder: Path, prefix: str) -> None:
        """prefix: that names of the encoder have in a model with heads. Raises UnusableCheckpointError."""
        self._folder = folder
        self._files = {path.name: _open(folder, path.name) for path in weight_files(folder)}
        self._stored: dict[str, tuple[str, str]] = {}  # name: file, name in the file
        for file, content in self._files.items():
            for stored in content.names():
                name = _plain_name(stored, prefix)
                if name in self._stored:
                    other, twin = self._stored[name]
                    detail = f"{file} has a tensor {stored}, which is the same as {twin} of {other}"
                    raise UnusableCheckpointError(folder, detail, COMPLETE)
                self._stored[name] = (file, stored)

    def places(self) -> Mapping[str, str]:
        """Every name, and the file it is in."""
        return {name: file for name, (file, _) in self._stored.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape."""
        file, stored = self._stored[name]
        return self._files[file].shape(stored)

    def kind(self, name: str) -> str:
        """Its type."""
        file, stored = self._stored[name]
        return self._files[file].kind(stored)

    def read(self, name: str) -> F32:
        """The tensor, as float32. Raises UnusableCheckpointError when the file is found to be damaged."""
        file, stored = self._stored[name]
        try:
            return self._files[file].read(stored)
        except WeightsFileError as error:
            raise UnusableCheckpointError(self._folder, f"{file} cannot be read: {error}", COMPLETE) from error


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the tensors, sorted. Raises UnusableCheckpointError when one is missing."""
    found = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise UnusableCheckpointError(folder, absent(folder, WEIGHTS_FILE), COMPLETE)
    if not found.endswith(_INDEX):
        return (folder / found,)
    shards = read_json(folder, found).get("weight_map")
    if not isinstance(shards, dict) or not shards or any(Path(str(file)).name != file for file in shards.values()):
        raise UnusableCheckpointError(folder, f"{found} has no weight_map of files", COMPLETE)
    for name in set(shards.values()):
        if not (folder / name).is_file():
            raise UnusableCheckpointError(folder, absent(folder, name), COMPLETE)
    return tuple(folder / name for name in sorted(set(shards.values())))


def _open(folder: Path, name: str) -> _File:
    safe = name.endswith(".safetensors")
    try:
        return SafetensorsFile(folder / name) if safe else PyTorchFile(folder / name)
    except WeightsFileError as error:
        raise UnusableCheckpointError(
            folder, f"{name} cannot be read: {error}", COMPLETE if safe else _CONVERT
        ) from error


def _plain_name(stored: str, prefix: str) -> str:
    """XForY puts `x.` before each name; the first conversions kept TensorFlow's gamma and beta."""
    name = stored.removeprefix(prefix)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
