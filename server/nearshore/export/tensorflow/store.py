"""A TensorFlow BERT as a source of tensors with Hugging Face's names and layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.tensorflow.names import as_hugging_face, hugging_face_name, is_of_training
from nearshore.export.tensorflow.tensors import Entry, TensorBundle
from nearshore.records import F32

_BOOLEAN = 10
_KINDS = {1: "F32", 19: "F16"}  # others are no weights: counters, flags


class TensorFlowStore:
    """The weights of a checkpoint; what only training needs is left out."""

    def __init__(self, folder: Path, prefix: str) -> None:
        """prefix: of the checkpoint's files, relative to the folder. Raises UnusableCheckpointError."""
        self._folder = folder
        self._bundle = TensorBundle(folder, prefix)
        self.files = self._bundle.files
        self.of_objects = self._bundle.of_objects
        self._found: dict[str, tuple[str, Entry]] = {}  # name: the variable's name, where it is
        for variable, entry in self._bundle.variables.items():
            if entry.kind in _KINDS and not is_of_training(variable, entry.key):
                name = hugging_face_name(variable, of_objects=self.of_objects)
                if name in self._found:
                    raise UnusableCheckpointError(folder, f"{entry.file} has {name} twice, the other as {variable}")
                self._found[name] = (variable, entry)

    def places(self) -> Mapping[str, str]:
        """Every name, and the file it is in."""
        return {name: entry.file for name, (_, entry) in self._found.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape in Hugging Face's layout."""
        variable, entry = self._found[name]
        return as_hugging_face(variable, np.broadcast_to(np.float32(0), entry.shape)).shape

    def kind(self, name: str) -> str:
        """Its type."""
        return _KINDS[self._found[name][1].kind]

    def read(self, name: str) -> F32:
        """The tensor, as float32."""
        variable, entry = self._found[name]
        tensor: F32 = as_hugging_face(variable, self._bundle.read(entry)).astype(np.float32, copy=False)
        return tensor

    def heads(self) -> int | None:
        """Of attention, where the checkpoint keeps heads apart."""
        _, entry = self._found.get("encoder.layer.0.attention.self.query.weight", ("", None))
        return entry.shape[1] if entry is not None and len(entry.shape) == 3 else None

    def flag(self, name: str) -> bool | None:
        """The value of a variable of truth that an object has as its attribute; None where there is none."""
        for entry in self._bundle.variables.values():
            if entry.key.partition("/")[0] == name and entry.shape == () and entry.kind == _BOOLEAN:
                return bool(self._bundle.read(entry))
        return None
