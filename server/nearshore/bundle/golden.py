"""Awkward texts, and the vectors that the exporting machine gave for them: golden.npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nearshore.bundle.errors import CorruptBundleError
from nearshore.bundle.manifest import Precision
from nearshore.records import F32

GOLDEN_FILE = "golden.npz"
_VECTORS = {Precision.FP32: "vectors", Precision.INT8: "vectors_int8"}  # arrays of the file


@dataclass(frozen=True, slots=True)
class Golden:
    """Texts and the vectors that a replica must reproduce before it serves."""

    texts: tuple[str, ...]
    vectors: F32  # (texts, dimensions)


def read_golden(folder: Path, precision: Precision, dimensions: int) -> Golden:
    """The golden texts and the vectors of this precision. Raises CorruptBundleError."""
    try:
        with np.load(folder / GOLDEN_FILE, allow_pickle=False) as arrays:
            texts, vectors = arrays["texts"], np.ascontiguousarray(arrays[_VECTORS[precision]], dtype=np.float32)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CorruptBundleError(folder, f"{GOLDEN_FILE} cannot be read ({error})") from error
    if not len(texts) or vectors.shape != (len(texts), dimensions):
        raise CorruptBundleError(folder, f"{GOLDEN_FILE} has vectors of shape {vectors.shape}")
    return Golden(tuple(texts.tolist()), vectors)


def write_golden(folder: Path, texts: list[str], vectors: Mapping[Precision, F32]) -> None:
    """Write golden.npz: vectors (texts, dimensions) float32, of every precision that the bundle has."""
    arrays: dict[str, Any] = {_VECTORS[precision]: each for precision, each in vectors.items()}
    np.savez_compressed(folder / GOLDEN_FILE, texts=np.array(texts), **arrays)


def cosines(left: F32, right: F32) -> npt.NDArray[np.float64]:
    """How near each vector is to its fellow: (n, d) twice to (n,), in float64; NaN where one has no length."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    found: npt.NDArray[np.float64] = np.einsum("ij,ij->i", a, b) / (
        np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    )
    return found
