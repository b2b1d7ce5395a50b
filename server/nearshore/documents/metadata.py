"""Metadata as sent, into metadata as stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from nearshore.documents.errors import MetadataTooDeepError, MetadataTooLargeError, NulInTextError
from nearshore.documents.limits import MAX_KEY_BYTES, Limits
from nearshore.documents.requests import RawValue, Timestamp
from nearshore.documents.sizes import size_bytes
from nearshore.errors import InvalidMetadataError
from nearshore.records import MetadataValue, Scalar, metadata_size_bytes

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


def checked_metadata(raw: Mapping[str, RawValue], field: str, limits: Limits) -> dict[str, MetadataValue]:
    """Metadata ready to be stored. Raises InvalidMetadataError, MetadataTooDeepError, MetadataTooLargeError and
    NulInTextError, naming the key below `field`.
    """
    if len(raw) > limits.max_metadata_keys:
        raise MetadataTooLargeError(
            f"{field} has {len(raw)} keys.",
            f"At most {limits.max_metadata_keys} (limits.max_metadata_keys) are allowed.",
            field=field,
        )
    checked: dict[str, MetadataValue] = {}
    for key, value in raw.items():
        where = f"{field}[{key[:MAX_KEY_BYTES]!r}]"
        _check_key(key, where)
        checked[key] = _value(value, where)
    size = metadata_size_bytes(checked)
    if size > limits.max_metadata_bytes:
        raise MetadataTooLargeError(
            f"{field} takes {size:,} bytes.",
            f"At most {limits.max_metadata_bytes:,} (limits.max_metadata_bytes) are allowed, 8 for a number or a "
            "timestamp; put long text in text.",
            field=field,
        )
    return checked


def _check_key(key: str, where: str) -> None:
    if "\0" in key:
        raise NulInTextError(f"The key of {where} holds NUL.", "Remove U+0000.", field=where)
    if not key or size_bytes(key) > MAX_KEY_BYTES or key.startswith("_"):
        raise InvalidMetadataError(
            f"The key of {where} is empty, longer than {MAX_KEY_BYTES} bytes or begins with '_'.",
            f"A key is 1 to {MAX_KEY_BYTES} bytes; names with a leading '_' are the documents' own fields in filters.",
            field=where,
        )


def _value(raw: RawValue, where: str) -> MetadataValue:
    if not isinstance(raw, tuple):
        return _scalar(raw, where)
    if any(isinstance(element, tuple) for element in raw):
        raise MetadataTooDeepError(f"{where} holds a list inside a list.", "Flatten it.", field=where)
    elements = tuple(_scalar(element, f"{where}[{index}]") for index, element in enumerate(raw))
    if len({type(element) for element in elements}) > 1:
        raise InvalidMetadataError(
            f"{where} is a list of several types.",
            "All elements of a list are strings, or int64, or doubles, or bools, or timestamps.",
            field=where,
        )
    return elements


def _scalar(raw: RawValue, where: str) -> Scalar:
    match raw:
        case str():
            if "\0" in raw:
                raise NulInTextError(f"{where} holds NUL.", "Remove U+0000.", field=where)
            return raw
        case bool():
            return raw
        case int() if -(1 << 63) <= raw < 1 << 63:
            return raw
        case float() if math.isfinite(raw):
            return raw
        case Timestamp():
            return _moment(raw, where)
        case None:
            raise InvalidMetadataError(f"{where} has no value.", "Set one kind of value, or drop the key.", field=where)
        case _:
            raise InvalidMetadataError(
                f"{where} is {raw!r:.40}.", "Numbers are int64, or doubles that are finite.", field=where
            )


def _moment(raw: Timestamp, where: str) -> datetime:
    if not (_FIRST_SECOND <= raw.seconds <= _LAST_SECOND and 0 <= raw.nanos < 1_000_000_000) or raw.nanos % 1_000:
        raise InvalidMetadataError(
            f"{where} is a timestamp of {raw.seconds} s and {raw.nanos} ns.",
            "Timestamps lie in the years 1 to 9999 and have whole microseconds.",
            field=where,
        )
    return _EPOCH + timedelta(seconds=raw.seconds, microseconds=raw.nanos // 1_000)
