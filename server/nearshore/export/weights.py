"""The tensors of a checkpoint by the names of its encoder, from one safetensors file or several.

A tensor that nobody asks for is a network that is not understood, so whatever is left over is refused, apart from heads
that the architecture is known to have and from buffers that only repeat numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from nearshore.export.config import read_json
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.family import Family
from nearshore.export.layout import Shape
from nearshore.records import F32

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"  # of a checkpoint in several files
_PICKLE = "pytorch_model.bin"
_TYPES = {"F32", "F16", "BF16"}
_BUFFERS = re.compile(r"(embeddings\.(position_ids|token_type_ids)|.*rotary_emb\.inv_freq)$")
_COMPLETE = "Get the checkpoint again, with all its files; config.json and weights must be those of one model."


class Weights:
    """The tensors of a checkpoint. Reads one at a time."""

    def __init__(self, folder: Path, family: Family) -> None:
        """Open the files. Raises UnusableCheckpointError."""
        self._folder = folder
        self._family = family
        self._files = {path.name: _open(folder, path.name) for path in weight_files(folder)}
        self._stored: dict[str, tuple[str, str]] = {}  # name: file, name in the file
        for file, content in self._files.items():
            for stored in content.offset_keys():
                self._stored[_plain_name(stored, family.prefix)] = (file, stored)

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._stored

    def read(self, name: str) -> F32:
        """The tensor of that name, as float32."""
        file, stored = self._stored[name]
        tensor: F32 = self._files[file].get_tensor(stored).astype(np.float32, copy=False)
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of that tensor."""
        file, stored = self._stored[name]
        return tuple(self._files[file].get_slice(stored).get_shape())

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Raise UnusableCheckpointError unless all of these are there, of this shape and of a type that is read."""
        for name, shape in shapes.items():
            if name not in self._stored:
                raise self._refusal(f"{self._places()} lacks the tensor {name}")
            file, stored = self._stored[name]
            found = self.shape(name)
            if not _fits(found, shape):
                raise self._refusal(f"{file}: {name} has shape {found}, by config.json it is {_spell(shape)}")
            kind = self._files[file].get_slice(stored).get_dtype()
            if kind not in _TYPES:
                raise self._refusal(f"{file}: {name} has type {kind}, supported are {', '.join(sorted(_TYPES))}")

    def refuse_others(self, known: Iterable[str]) -> None:
        """Raise UnusableCheckpointError if there is a tensor that is neither known nor a head's nor a buffer."""
        used = set(known)
        for name, (file, stored) in self._stored.items():
            if name not in used and not name.startswith(self._family.heads) and not _BUFFERS.match(name):
                raise self._refusal(
                    f"{file} has a tensor {stored} of shape {self.shape(name)}, which no {self._family.architecture} "
                    "network of this configuration has"
                )

    def _places(self) -> str:
        return WEIGHTS_FILE if len(self._files) == 1 else f"none of the {len(self._files)} files of weights"

    def _refusal(self, detail: str) -> UnusableCheckpointError:
        return UnusableCheckpointError(self._folder, detail, _COMPLETE)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the tensors, sorted. Raises UnusableCheckpointError when one is missing."""
    if (folder / WEIGHTS_FILE).is_file() or not (folder / INDEX_FILE).is_file():
        names = [WEIGHTS_FILE]
    else:
        shards = read_json(folder, INDEX_FILE).get("weight_map")
        if not isinstance(shards, dict) or not shards or any("/" in str(file) for file in shards.values()):
            raise UnusableCheckpointError(folder, f"{INDEX_FILE} has no weight_map", _COMPLETE)
        names = sorted(set(shards.values()))
    if names == [WEIGHTS_FILE] and (folder / _PICKLE).is_file() and not (folder / WEIGHTS_FILE).is_file():
        raise UnusableCheckpointError(
            folder,
            f"{_PICKLE} is a pickle, which can run code when it is read",
            f"Get its {WEIGHTS_FILE}, or convert it.",
        )
    for name in names:
        if not (folder / name).is_file():
            raise UnusableCheckpointError(folder, f"{name} is missing", _COMPLETE)
    return [folder / name for name in names]


def _open(folder: Path, name: str) -> Any:
    try:
        return safe_open(folder / name, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise UnusableCheckpointError(folder, f"{name} cannot be read ({error})", _COMPLETE) from error


def _plain_name(stored: str, prefix: str) -> str:
    """XForY puts `x.` before each name; the first conversions kept TensorFlow's gamma and beta."""
    name = stored.removeprefix(prefix)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def _fits(found: tuple[int, ...], shape: Shape) -> bool:
    pairs = zip(found, shape, strict=False)
    return len(found) == len(shape) and all(wanted in {None, size} for size, wanted in pairs)


def _spell(shape: Shape) -> str:
    if None not in shape:
        return str(shape)
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
