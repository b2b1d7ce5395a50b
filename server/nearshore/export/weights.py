"""The tensors of a checkpoint by the names of its encoder, whatever files they lie in.

A tensor that nobody asks for is a network that is not understood, so whatever is left over is refused, apart from heads
that the architecture is known to have and from buffers that only repeat numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.layout import Shape
from nearshore.records import F32

COMPLETE = "Get the checkpoint again, with all its files; configuration and weights must be those of one model."
_TYPES = {"F32", "F16", "BF16"}  # the last by ml-dtypes, which NumPy lacks
_BUFFERS = re.compile(r"(embeddings\.(position_ids|token_type_ids)|.*rotary_emb\.inv_freq)$")


class TensorStore(Protocol):
    """Files that hold tensors, under the names of the encoder, linear layers as (outputs, inputs)."""

    def places(self) -> Mapping[str, str]:
        """Every name, and the file it is in."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape."""
        ...

    def kind(self, name: str) -> str:
        """Its type, as safetensors spell it."""
        ...

    def read(self, name: str) -> F32:
        """The tensor, as float32."""
        ...


class Weights:
    """The tensors of a checkpoint, checked before they are read one at a time."""

    def __init__(self, folder: Path, store: TensorStore) -> None:
        """folder: of the checkpoint, for messages."""
        self._folder = folder
        self._store = store
        self._places = store.places()
        self.shape = store.shape

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._places

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Raise UnusableCheckpointError unless all of these are there, of this shape and of a type that is read."""
        for name, shape in shapes.items():
            if name not in self._places:
                files = sorted(set(self._places.values()))
                where = files[0] if len(files) == 1 else f"none of the {len(files)} files of weights"
                raise self._refusal(f"{where} lacks the tensor {name}")
            file, found, kind = self._places[name], self._store.shape(name), self._store.kind(name)
            if not _fits(found, shape):
                raise self._refusal(f"{file}: {name} has shape {found}, by the configuration it is {_spell(shape)}")
            if kind not in _TYPES:
                raise self._refusal(f"{file}: {name} has type {kind}, supported are {', '.join(sorted(_TYPES))}")

    def read(self, name: str) -> F32:
        """The tensor, as float32. Raises UnusableCheckpointError for one with numbers that are not finite."""
        tensor = self._store.read(name)
        if not np.isfinite(tensor).all():
            raise self._refusal(f"{self._places[name]}: {name} has numbers that are not finite: it is damaged")
        return tensor

    def refuse_others(self, known: Iterable[str], *, owner: str, heads: tuple[str, ...] = ()) -> None:
        """Raise UnusableCheckpointError if there is a tensor that is neither known nor a head's nor a buffer.

        owner: whose tensors they are, for messages; heads: how names of heads begin.
        """
        used = set(known)
        for name, file in self._places.items():
            if name not in used and not name.startswith(heads) and not _BUFFERS.match(name):
                raise self._refusal(
                    f"{file} has a tensor {name} of shape {self.shape(name)}, which no {owner} of this configuration "
                    "has"
                )

    def _refusal(self, detail: str) -> UnusableCheckpointError:
        return UnusableCheckpointError(self._folder, detail, COMPLETE)


def _fits(found: tuple[int, ...], shape: Shape) -> bool:
    pairs = zip(found, shape, strict=False)
    return len(found) == len(shape) and all(wanted in {None, size} for size, wanted in pairs)


def _spell(shape: Shape) -> str:
    if None not in shape:
        return str(shape)
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
