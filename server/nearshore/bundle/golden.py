"""Awkward texts, or pairs of them, and what the exporting machine gave for them: golden.npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class GoldenPairs:
    """Queries with texts, and the logits that a replica must reproduce before it serves."""

    pairs: tuple[tuple[str, str], ...]
    logits: F32  # (pairs,)


def read_golden_pairs(folder: Path) -> GoldenPairs:
    """The golden pairs of a cross-encoder. Raises CorruptBundleError."""
    texts, logits = _read(folder, Precision.FP32)
    if not len(texts) or texts.shape != (len(texts), 2) or logits.shape != (len(texts), 1):
        raise CorruptBundleError(folder, f"{GOLDEN_FILE} has pairs of shape {texts.shape}, logits of {logits.shape}")
    return GoldenPairs(tuple((query, text) for query, text in texts.tolist()), logits[:, 0])


def read_golden(folder: Path, precision: Precision, dimensions: int) -> Golden:
    """The golden texts and the vectors of this precision. Raises CorruptBundleError."""
    texts, vectors = _read(folder, precision)
    if not len(texts) or vectors.shape != (len(texts), dimensions):
        raise CorruptBundleError(folder, f"{GOLDEN_FILE} has vectors of shape {vectors.shape}")
    return Golden(tuple(texts.tolist()), vectors)


def _read(folder: Path, precision: Precision) -> tuple[Any, F32]:
    try:
        with np.load(folder / GOLDEN_FILE, allow_pickle=False) as arrays:
            return arrays["texts"], np.ascontiguousarray(arrays[_VECTORS[precision]], dtype=np.float32)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CorruptBundleError(folder, f"{GOLDEN_FILE} cannot be read ({error})") from error


def write_golden(
    folder: Path, texts: Sequence[str] | Sequence[tuple[str, str]], vectors: Mapping[Precision, F32]
) -> None:
    """Write golden.npz: vectors (texts, dimensions) float32, of every precision that the bundle has.

    texts: pairs of a cross-encoder, whose vectors are logits, (pairs, 1).
    """
    arrays: dict[str, Any] = {_VECTORS[precision]: each for precision, each in vectors.items()}
    np.savez_compressed(folder / GOLDEN_FILE, texts=np.array(texts), **arrays)


def cosines(left: F32, right: F32) -> npt.NDArray[np.float64]:
    """How near each vector is to its fellow: (n, d) twice to (n,), in float64; NaN where one has no length."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    found: npt.NDArray[np.float64] = np.einsum("ij,ij->i", a, b) / (
        np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    )
    return found
