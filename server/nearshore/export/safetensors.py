"""Tensors in model.safetensors, or in several files that an index names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from nearshore.export.config import read_json
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.weights import COMPLETE
from nearshore.records import F32

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"


class SafetensorsStore:
    """Open files of one checkpoint."""

    def __init__(self, folder: Path, prefix: str) -> None:
        """prefix: that names of the encoder have in a model with heads. Raises UnusableCheckpointError."""
        self._files = {path.name: _open(folder, path.name) for path in weight_files(folder)}
        self._stored: dict[str, tuple[str, str]] = {}  # name: file, name in the file
        for file, content in self._files.items():
            for stored in content.offset_keys():
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
        return tuple(self._slice(name).get_shape())

    def kind(self, name: str) -> str:
        """Its type."""
        kind: str = self._slice(name).get_dtype()
        return kind

    def read(self, name: str) -> F32:
        """The tensor, as float32."""
        file, stored = self._stored[name]
        tensor: F32 = self._files[file].get_tensor(stored).astype(np.float32, copy=False)
        return tensor

    def _slice(self, name: str) -> Any:
        file, stored = self._stored[name]
        return self._files[file].get_slice(stored)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the tensors, sorted. Raises UnusableCheckpointError when one is missing."""
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    if not (folder / INDEX_FILE).is_file():
        if (folder / _PICKLE).is_file():
            detail = f"{_PICKLE} is a pickle, which can run code"
            raise UnusableCheckpointError(folder, detail, f"Get its {WEIGHTS_FILE}, or convert it.")
        raise UnusableCheckpointError(folder, f"{WEIGHTS_FILE} is missing", COMPLETE)
    shards = read_json(folder, INDEX_FILE).get("weight_map")
    if not isinstance(shards, dict) or not shards or any(Path(str(file)).name != file for file in shards.values()):
        raise UnusableCheckpointError(folder, f"{INDEX_FILE} has no weight_map of files", COMPLETE)
    for name in set(shards.values()):
        if not (folder / name).is_file():
            raise UnusableCheckpointError(folder, f"{name} is missing", COMPLETE)
    return tuple(folder / name for name in sorted(set(shards.values())))


def _open(folder: Path, name: str) -> Any:
    try:
        return safe_open(folder / name, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise UnusableCheckpointError(folder, f"{name} cannot be read ({error})", COMPLETE) from error


def _plain_name(stored: str, prefix: str) -> str:
    """XForY puts `x.` before each name; the first conversions kept TensorFlow's gamma and beta."""
    name = stored.removeprefix(prefix)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
