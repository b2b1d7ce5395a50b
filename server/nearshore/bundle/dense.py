"""Layers that turn a text's pooled vector into another, and the file that holds their weights: dense.npz."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearshore.bundle.errors import CorruptBundleError
from nearshore.bundle.manifest import Dense, DenseActivation
from nearshore.records import F32

DENSE_FILE = "dense.npz"


@dataclass(frozen=True, slots=True, eq=False)
class DenseLayer:
    """activation(weight @ vector + bias)."""

    weight: F32  # (outputs, inputs)
    bias: F32  # (outputs,); zeros where the checkpoint has none
    activation: DenseActivation

    def describe(self) -> Dense:
        """What a manifest says of it."""
        digest = hashlib.sha256()
        for numbers in (self.weight, self.bias):
            digest.update(np.ascontiguousarray(numbers, dtype="<f4").tobytes())
        return Dense(outputs=len(self.bias), activation=self.activation, sha256=digest.hexdigest())


def write_dense(folder: Path, layers: Sequence[DenseLayer]) -> None:
    """Write dense.npz: weight0, bias0, weight1, ..."""
    arrays: dict[str, Any] = {f"weight{number}": layer.weight for number, layer in enumerate(layers)}
    arrays |= {f"bias{number}": layer.bias for number, layer in enumerate(layers)}
    np.savez(folder / DENSE_FILE, **arrays)


def read_dense(folder: Path, described: Sequence[Dense], inputs: int) -> tuple[DenseLayer, ...]:
    """The layers of which a manifest says this, the first for vectors of `inputs`. Raises CorruptBundleError."""
    layers = []
    try:
        with np.load(folder / DENSE_FILE, allow_pickle=False) as arrays:
            for number, each in enumerate(described):
                weight, bias = (
                    np.ascontiguousarray(arrays[f"{name}{number}"], dtype=np.float32) for name in ("weight", "bias")
                )
                layers.append(DenseLayer(weight, bias, each.activation))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CorruptBundleError(folder, f"{DENSE_FILE} cannot be read ({error})") from error
    for layer, each in zip(layers, described, strict=True):
        fits = layer.weight.shape == (each.outputs, inputs) and layer.bias.shape == (each.outputs,)
        if not fits or layer.describe() != each:
            raise CorruptBundleError(folder, f"{DENSE_FILE} is not what its manifest says")
        inputs = each.outputs
    return tuple(layers)
