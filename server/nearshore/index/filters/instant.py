"""Timestamps as whole microseconds since 1970, the unit in which columns hold and filters compare them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,40}))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)


def microseconds(moment: datetime) -> int:
    """Microseconds from 1970-01-01T00:00:00Z to an aware datetime; exact."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_instant_us(text: str) -> Fraction | None:
    """Read an RFC 3339 timestamp as microseconds since 1970, exactly however fine it is; None where it is none.

    Leap seconds (":60") are none: a datetime cannot hold them.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    *numbers, fraction, zulu, sign, offset_h, offset_min = match.groups()
    try:
        local = datetime(*(int(number) for number in numbers), tzinfo=UTC)  # type: ignore[arg-type,misc]  # six of them
    except ValueError:
        return None
    offset_us = 0
    if not zulu:
        if int(offset_h) > 23 or int(offset_min) > 59:
            return None
        offset_us = (int(offset_h) * 60 + int(offset_min)) * 60_000_000 * (-1 if sign == "-" else 1)
    finer = Fraction(int(fraction) * 1_000_000, 10 ** len(fraction)) if fraction else Fraction(0)
    return microseconds(local) - offset_us + finer
