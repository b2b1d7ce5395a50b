"""Tensors in a file of safetensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from nearshore.export.errors import WeightsFileError
from nearshore.records import F32


class SafetensorsFile:
    """An open file."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsFileError."""
        self._path = path
        self._content = self._open()

    def names(self) -> Iterable[str]:
        """Of all tensors, in the order of the file."""
        names: list[str] = self._content.offset_keys()
        return names

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self._content.get_slice(name).get_shape())

    def kind(self, name: str) -> str:
        """Its type."""
        kind: str = self._content.get_slice(name).get_dtype()
        return kind

    def read(self, name: str) -> F32:
        """The tensor, as float32. Raises WeightsFileError."""
        # Opened anew: what is read of a file that stays open stays mapped, and counts as memory that is used.
        with self._open() as content:
            tensor: F32 = content.get_tensor(name).astype(np.float32, copy=False)
        return tensor

    def _open(self) -> Any:
        try:
            return safe_open(self._path, framework="numpy")
        except (OSError, SafetensorError) as error:
            raise WeightsFileError(str(error)) from error
