"""Comparisons of whole columns with one literal, exact across integers, doubles and moments."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nearshore.index.filters import Operator

Bools = npt.NDArray[np.bool_]
_INT64 = np.iinfo(np.int64)
_UPWARDS = {Operator.GREATER, Operator.GREATER_EQUAL}


def compare_integers(values: npt.NDArray[np.int64], how: Operator, literal: float | Fraction) -> Bools:
    """Compare values (m,) with any finite number, without ever rounding an integer to a double."""
    exact = Fraction(literal)
    if how is Operator.EQUAL and exact.denominator != 1:
        return np.zeros(len(values), bool)
    if how in {Operator.LESS, Operator.GREATER_EQUAL}:
        bound = -((-exact.numerator) // exact.denominator)  # the ceiling: v < 2.5 as v < 3
    else:
        bound = exact.numerator // exact.denominator
    if not _INT64.min <= bound <= _INT64.max:
        beyond = how is not Operator.EQUAL and (how in _UPWARDS) == (bound < 0)
        return np.full(len(values), beyond)
    return _compare(values, how, np.int64(bound))


def compare_doubles(values: npt.NDArray[np.float64], how: Operator, literal: float) -> Bools:
    """Compare values (m,) with a finite double, or with an integer that may lie between two doubles."""
    nearest = float(literal)
    if nearest == literal:  # Python compares int with float exactly
        return _compare(values, how, np.float64(nearest))
    if how is Operator.EQUAL:
        return np.zeros(len(values), bool)
    if how in _UPWARDS:
        return values > nearest if nearest < literal else values >= nearest
    return values <= nearest if nearest < literal else values < nearest


def compare_strings(values: list[str], how: Operator, literal: str) -> Bools:
    """Compare values (m strings) by code point, which is how Python orders strings."""
    tests: dict[Operator, Callable[[str], bool]] = {
        Operator.EQUAL: literal.__eq__,
        Operator.LESS: literal.__gt__,
        Operator.LESS_EQUAL: literal.__ge__,
        Operator.GREATER: literal.__lt__,
        Operator.GREATER_EQUAL: literal.__le__,
    }
    return np.fromiter(map(tests[how], values), bool, len(values))


def _compare(values: npt.NDArray[np.int64 | np.float64], how: Operator, bound: np.int64 | np.float64) -> Bools:
    hits: Bools
    match how:
        case Operator.EQUAL:
            hits = values == bound
        case Operator.LESS:
            hits = values < bound
        case Operator.LESS_EQUAL:
            hits = values <= bound
        case Operator.GREATER:
            hits = values > bound
        case Operator.GREATER_EQUAL:
            hits = values >= bound
    return hits
