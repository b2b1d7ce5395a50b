"""Metadata as JSON text that keeps every type apart and every value exact.

Strings, booleans and lists are JSON's own; integers have no point and floats always have one (or an exponent);
a timestamp is {"t": "2026-01-31T12:00:00.000001+00:00"}, a float that JSON lacks {"f": "nan"}.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from nearshore.errors import InvalidMetadataError
from nearshore.records import Metadata, MetadataValue, Scalar

_INT64 = range(-(1 << 63), 1 << 63)


def encode_metadata(metadata: Metadata) -> str:
    """The JSON text of metadata.

    Raises InvalidMetadataError for an integer beyond 64 bits, a timestamp without zone, or another type.
    """
    if not metadata:
        return "{}"
    tagged = {key: _encode_value(key, value) for key, value in metadata.items()}
    return json.dumps(tagged, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def decode_metadata(text: str) -> dict[str, MetadataValue]:
    """What encode_metadata was given."""
    if text == "{}":
        return {}
    return {key: _decode_value(value) for key, value in json.loads(text).items()}


def _encode_value(key: str, value: MetadataValue) -> object:
    if isinstance(value, tuple):
        return [_encode_scalar(key, element) for element in value]
    return _encode_scalar(key, value)


def _encode_scalar(key: str, value: Scalar) -> object:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if value not in _INT64:
            raise InvalidMetadataError(f"Metadata {key!r} holds an integer beyond 64 bits.", "Send it as a string.")
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"f": repr(float(value))}
    if isinstance(value, datetime) and value.tzinfo is not None:
        return {"t": value.astimezone(UTC).isoformat()}
    raise InvalidMetadataError(
        f"Metadata {key!r} holds {value!r}, which has no metadata type.",
        "Use strings, 64-bit integers, doubles, booleans, timestamps with a zone, or lists of these.",
    )


def _decode_value(value: Any) -> MetadataValue:
    if isinstance(value, list):
        return tuple(_decode_scalar(element) for element in value)
    return _decode_scalar(value)


def _decode_scalar(value: Any) -> Scalar:
    if isinstance(value, dict):
        (kind, text), *_ = value.items()
        return datetime.fromisoformat(text) if kind == "t" else float(text)
    scalar: Scalar = value
    return scalar
