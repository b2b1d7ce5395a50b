"""Vectors as sent, into vectors as stored and searched."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from nearshore.documents.errors import (
    FingerprintMismatchError,
    FingerprintRequiredError,
    VectorBytesError,
    VectorNotFiniteError,
    VectorRowsError,
    VectorTooLargeError,
    VectorWidthError,
    ZeroVectorError,
)
from nearshore.documents.requests import Vectors
from nearshore.records import F32, CollectionSpec, Metric

MAX_NORM = 1e18  # two of them still have a product, and a squared distance, that float32 can hold
_UNIT_TOLERANCE = 1e-6  # of the squared norm: a vector normalized in float32 keeps its bits


def sent_vectors(sent: Vectors, spec: CollectionSpec, field: str, *, rows: int) -> F32:
    """The (rows, dimensions) float32 matrix that was sent, as the collection's metric wants it.

    Raises VectorBytesError, VectorRowsError, VectorWidthError, FingerprintRequiredError, FingerprintMismatchError,
    VectorNotFiniteError, VectorTooLargeError and ZeroVectorError, naming `field` and the first row at fault.
    """
    _check_shape(sent, field, dimensions=spec.dimensions, rows=rows)
    _check_fingerprint(sent.fingerprint, spec, f"{field}.fingerprint")
    vectors: F32 = np.frombuffer(sent.data, dtype="<f4").reshape(rows, spec.dimensions)
    return for_metric(vectors, spec.metric, field)


def for_metric(vectors: F32, metric: Metric, field: str) -> F32:
    """Vectors (n, d) as the metric wants them: of unit length for cosine, unchanged otherwise.

    Rows that are of unit length already, to float32's precision, keep their bits. Refuses rows that no score can be
    computed with: VectorNotFiniteError, VectorTooLargeError, ZeroVectorError, naming `field` and the row.
    """
    squares = _squared_norms(vectors)
    usable = (squares > 0) & (squares <= MAX_NORM**2)
    if not usable.all():
        _refuse(vectors, int(np.argmin(usable)), field)
    if metric is not Metric.COSINE:
        return vectors
    off = np.abs(squares - 1) > _UNIT_TOLERANCE
    if not off.any():
        return vectors
    scaled = vectors.copy()
    scaled[off] = vectors[off].astype(np.float64) / np.sqrt(squares[off])[:, None]
    return scaled


def _refuse(vectors: F32, row: int, field: str) -> NoReturn:
    where = {"field": field, "index": row}
    if not np.isfinite(vectors[row]).all():
        raise VectorNotFiniteError(
            f"Row {row} of {field} has a component that is NaN or infinite.", "All components must be finite.", **where
        )
    if not vectors[row].any():
        raise ZeroVectorError(
            f"Row {row} of {field} is all zeros.",
            "Leave the row out: a vector without direction is close to nothing.",
            **where,
        )
    raise VectorTooLargeError(
        f"Row {row} of {field} has a norm beyond {MAX_NORM:.0e}.", "Scale the vectors down.", **where
    )


def _check_fingerprint(sent: str, spec: CollectionSpec, field: str) -> None:
    """Refuse vectors of another model. Raises FingerprintRequiredError and FingerprintMismatchError."""
    if sent == spec.fingerprint:
        return
    if not sent:
        raise FingerprintRequiredError(
            f"{field} is required: the collection {spec.name!r} holds vectors of {spec.model}.",
            f"Send the fingerprint that Embed answered with the vectors; the collection's is {spec.fingerprint}.",
            field=field,
        )
    if not spec.fingerprint:
        raise FingerprintMismatchError(
            f"{field} is {sent[:80]!r}, but the collection {spec.name!r} has no model to compare it with.",
            "Leave the fingerprint out, or create the collection with the model.",
            field=field,
        )
    raise FingerprintMismatchError(
        f"{field} is {sent[:80]!r}, but the collection {spec.name!r} holds vectors of {spec.fingerprint}.",
        f"Embed with {spec.model} as it was, and in the precision it was served in, when the collection was created, "
        "or use a new collection.",
        field=field,
        fingerprint=spec.fingerprint,
    )


def _check_shape(sent: Vectors, field: str, *, dimensions: int, rows: int) -> None:
    if len(sent.data) != 4 * sent.rows * sent.dimensions or sent.rows < 0:
        raise VectorBytesError(
            f"{field}.data has {len(sent.data):,} bytes for {sent.rows} rows of {sent.dimensions} dimensions.",
            "Send exactly 4 * rows * dimensions bytes: little-endian float32, row by row.",
            field=field,
        )
    if sent.rows != rows:
        raise VectorRowsError(f"{field} has {sent.rows} rows.", f"Send exactly {rows}.", field=field)
    if sent.dimensions != dimensions:
        raise VectorWidthError(
            f"{field} has {sent.dimensions} dimensions.",
            f"The collection's vectors have {dimensions}.",
            field=field,
            dimensions=dimensions,
        )


def _squared_norms(vectors: F32) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(n,) in float64, which holds the square of any float32; not finite where a component is not."""
    with np.errstate(invalid="ignore"):
        squares: np.ndarray[tuple[int], np.dtype[np.float64]] = np.einsum(
            "nd,nd->n", vectors, vectors, dtype=np.float64
        )
    return squares
