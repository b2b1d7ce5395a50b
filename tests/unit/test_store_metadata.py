"""Metadata survives its text form with every type and value intact."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearshore.errors import InvalidMetadataError
from nearshore.records import MetadataValue
from nearshore.store.metadata import decode_metadata, encode_metadata

STRINGS = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers(-(2**63), 2**63 - 1)
TIMES = st.datetimes(timezones=st.just(UTC))
VALUES = st.one_of(
    STRINGS,
    INTEGERS,
    st.floats(),
    st.booleans(),
    TIMES,
    *(st.lists(scalars, max_size=4).map(tuple) for scalars in (STRINGS, INTEGERS, st.floats(), st.booleans(), TIMES)),
)


def exact(value: MetadataValue) -> object:
    """Something that is equal only for values of one type and, for floats, of the same bits (any NaN is one NaN)."""
    if isinstance(value, tuple):
        return tuple(exact(element) for element in value)
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else struct.pack("<d", value)
    return type(value), value


@given(st.dictionaries(STRINGS, VALUES, max_size=6))
def test_metadata_round_trips_exactly(metadata: dict[str, MetadataValue]) -> None:
    """decode(encode(m)) has the same keys, types and values, down to the bits of floats and microseconds."""
    decoded = decode_metadata(encode_metadata(metadata))
    assert {key: exact(value) for key, value in decoded.items()} == {k: exact(v) for k, v in metadata.items()}


def test_look_alikes_stay_apart() -> None:
    """1, 1.0, True, "1", (1,) and strings that look like the codec's own tags come back as what they were."""
    values: list[MetadataValue] = [1, 1.0, True, "1", (1,), (1.0,), (), "", '{"t":"x"}', "2024-01-01T00:00:00+00:00"]
    metadata = {str(number): value for number, value in enumerate(values)} | {"t": "x", "f": "nan"}
    decoded = decode_metadata(encode_metadata(metadata))
    assert {key: exact(value) for key, value in decoded.items()} == {k: exact(v) for k, v in metadata.items()}


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    """Zones are converted to UTC."""
    at = datetime(2024, 5, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    decoded = decode_metadata(encode_metadata({"at": at}))["at"]
    assert decoded == at
    assert isinstance(decoded, datetime)
    assert decoded.tzinfo is UTC


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, datetime(2024, 1, 1), None, b"x", {"a": 1}, ((1,),)])
def test_what_metadata_cannot_hold_is_refused(value: object) -> None:
    """Integers beyond 64 bits, times without zone and foreign types raise INVALID_METADATA."""
    with pytest.raises(InvalidMetadataError):
        encode_metadata({"key": value})  # type: ignore[dict-item]
