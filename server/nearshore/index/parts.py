"""The pieces of a column: the values of one type under one key, each with the row it belongs to.

Sparse by design: a key that one document in a thousand has costs a thousandth, a list is several entries of one row,
and a key whose type varies is several parts.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from nearshore.index.comparing import Bools, compare_strings
from nearshore.index.filters import Operator
from nearshore.index.growing import Growing

I32 = npt.NDArray[np.int32]
T = TypeVar("T", bound=np.generic)


class ValueType(enum.StrEnum):
    """What a part holds; the names are those of the saved form."""

    STRING = "string"
    INTEGER = "integer"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"  # microseconds since 1970
    EMPTY_LIST = "empty"  # that the row has the key, and nothing under it


DTYPES: dict[ValueType, type[np.generic]] = {
    ValueType.STRING: np.int32,  # codes
    ValueType.INTEGER: np.int64,
    ValueType.DOUBLE: np.float64,
    ValueType.BOOLEAN: np.bool_,
    ValueType.TIMESTAMP: np.int64,
    ValueType.EMPTY_LIST: np.bool_,
}


class Part(Generic[T]):
    """Entries (row, value), append-only, in the order of their rows."""

    def __init__(self, dtype: type[T]) -> None:
        """dtype: of the values."""
        self._rows: Growing[np.int32] = Growing(np.int32)
        self._values: Growing[T] = Growing(dtype)
        self._dense = 0  # so many entries, from the first on, lie in consecutive rows

    def extend(self, rows: I32, values: npt.NDArray[T]) -> None:
        """Append entries; rows (m,) ascending, none below an earlier one."""
        self._values.extend(values)  # before the rows, by which readers count
        if self._dense == len(self._rows) and len(rows):
            first = int(self._rows.array()[0]) if self._dense else int(rows[0])
            self._dense += int(np.argmin(np.append(rows == first + self._dense + np.arange(len(rows)), False)))
        self._rows.extend(rows)

    def entries(self, row_count: int, first_row: int = 0) -> tuple[I32, npt.NDArray[T]]:
        """Rows and values (m,) of the entries in rows first_row to row_count - 1."""
        rows = self._rows.array()
        start, end = np.searchsorted(rows, np.array([first_row, row_count], np.int32))
        return rows[start:end], self._values.array()[start:end]

    def mark(self, mask: Bools, hits: Bools) -> None:
        """Set the rows of those entries for which hits holds; hits (m,) for the first m entries, mask (n,)."""
        rows = self._rows.array()[: len(hits)]
        dense = min(self._dense, len(hits))
        if dense:  # a slice is several times faster than scattered rows
            mask[rows[0] : rows[0] + dense] |= hits[:dense]
        mask[rows[dense:][hits[dense:]]] = True


class StringPart(Part[np.int32]):
    """Strings as codes into a dictionary, in which comparisons are made once per distinct string."""

    def __init__(self) -> None:
        """Empty."""
        super().__init__(np.int32)
        self._codes: dict[str, int] = {}
        self._strings: list[str] = []

    def encode(self, values: Iterable[str]) -> I32:
        """The codes (m,) of strings, new ones entered."""
        codes, strings = self._codes, self._strings
        result: list[int] = []
        for value in values:
            code = codes.get(value)
            if code is None:
                code = len(strings)
                strings.append(value)  # before its code can be found
                codes[value] = code
            result.append(code)
        return np.array(result, np.int32)

    def decode(self, code_count: int) -> list[str]:
        """The first code_count strings of the dictionary."""
        return self._strings[:code_count]

    def equal(self, codes: I32, literals: Sequence[str]) -> Bools:
        """Which of codes (m,) stand for one of the literals."""
        wanted = [code for code in map(self._codes.get, literals) if code is not None]
        if len(wanted) <= 1:
            return codes == wanted[0] if wanted else np.zeros(len(codes), bool)
        return self._gather(codes, np.array(wanted, np.int32))

    def compare(self, codes: I32, how: Operator, literal: str) -> Bools:
        """Which of codes (m,) stand for a string that compares so with the literal."""
        return self._gather(codes, np.flatnonzero(compare_strings(self._strings[:], how, literal)))

    def _gather(self, codes: I32, wanted: npt.NDArray[np.int32 | np.int64]) -> Bools:
        table = np.zeros(len(self._strings), bool)
        table[wanted[wanted < len(table)]] = True
        return table.take(codes)


class IdPart:
    """The id of every row. Ids differ, so a dictionary would only cost: a checksum finds the few to compare."""

    def __init__(self) -> None:
        """Empty."""
        self._ids: list[str] = []
        self._checksums: Growing[np.uint32] = Growing(np.uint32)

    def extend(self, ids: Sequence[str]) -> None:
        """Append the ids of further rows."""
        self._ids.extend(ids)
        self._checksums.extend(np.fromiter(map(_checksum, ids), np.uint32, len(ids)))

    def ids(self, row_count: int) -> list[str]:
        """The ids of the first row_count rows."""
        return self._ids[:row_count]

    def take(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The ids of these rows."""
        return [self._ids[row] for row in rows.tolist()]

    def equal(self, row_count: int, literals: Sequence[str]) -> Bools:
        """Which of the first row_count rows have one of the ids."""
        mask = np.zeros(row_count, bool)
        wanted = set(literals)
        checksums = np.fromiter(map(_checksum, wanted), np.uint32, len(wanted))
        ours = self._checksums.array()[:row_count]
        likely = np.flatnonzero(ours == checksums[0] if len(checksums) == 1 else np.isin(ours, checksums))
        mask[[row for row in likely.tolist() if self._ids[row] in wanted]] = True
        return mask

    def compare(self, row_count: int, how: Operator, literal: str) -> Bools:
        """Which of the first row_count rows have an id that compares so with the literal."""
        return compare_strings(self._ids[:row_count], how, literal)


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))
