"""The metadata of all rows by column, so that a filter is held against hundreds of thousands of rows at once.

One thread appends; any thread evaluates filters over the first n rows, which never change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nearshore.index.comparing import Bools, compare_doubles, compare_integers
from nearshore.index.filters import And, Comparison, Field, FieldKind, Filter, Instant, Literal, Node, Not, Operator, Or
from nearshore.index.filters import Present as Has
from nearshore.index.filters.instant import microseconds
from nearshore.index.parts import DTYPES, IdPart, Part, StringPart, ValueType
from nearshore.records import Document, MetadataValue

_TYPES: dict[type, ValueType] = {
    str: ValueType.STRING,
    int: ValueType.INTEGER,
    float: ValueType.DOUBLE,
    bool: ValueType.BOOLEAN,
    datetime: ValueType.TIMESTAMP,
}
PartKey = tuple[str, ValueType]
AnyPart = Part[Any]


class Columns:
    """Id, title, parent and metadata of rows 0 to n - 1, append-only."""

    def __init__(self) -> None:
        """No rows."""
        self._row_count = 0
        self._ids = IdPart()
        self._parts: dict[PartKey, AnyPart] = {}  # also "_title" and "_parent_id"; metadata keys begin otherwise

    @property
    def row_count(self) -> int:
        """Rows so far."""
        return self._row_count

    def append(self, documents: Sequence[Document]) -> None:
        """Append one row a document."""
        entries: defaultdict[PartKey, tuple[list[int], list[Any]]] = defaultdict(lambda: ([], []))
        for row, document in enumerate(documents, self._row_count):
            for key, value in document.metadata.items():
                _collect(entries, key, row, value)
            if document.title:
                _collect(entries, FieldKind.TITLE.value, row, document.title)
            if document.parent_id:
                _collect(entries, FieldKind.PARENT_ID.value, row, document.parent_id)
        for part_key, (rows, values) in entries.items():
            self._extend(part_key, np.array(rows, np.int32), values)
        self._ids.extend([document.id for document in documents])
        self._row_count += len(documents)

    def append_from(self, other: Columns, rows: npt.NDArray[np.int64]) -> None:
        """Append rows (m,) of another, ascending, dropping what only its other rows hold."""
        if not len(rows):
            return
        first, end = int(rows[0]), int(rows[-1]) + 1
        target = np.full(end - first, -1, np.int32)
        target[rows - first] = np.arange(self._row_count, self._row_count + len(rows), dtype=np.int32)
        for part_key, part in list(other._parts.items()):  # a copy: its own thread may enter new keys meanwhile
            old_rows, values = part.entries(end, first)
            new_rows = target[old_rows - first]
            kept = new_rows >= 0
            if kept.any():
                self._extend(part_key, new_rows[kept], _decoded(part, values[kept]))
        self._ids.extend(other._ids.take(rows))
        self._row_count += len(rows)

    def mask(self, condition: Filter, rows: int) -> Bools:
        """Which of the first `rows` rows match, (rows,)."""
        return self._evaluate(condition.root, rows)

    def part_entries(self, rows: int) -> list[tuple[PartKey, npt.NDArray[np.int32], npt.NDArray[Any], list[str]]]:
        """The content of the first `rows` rows, for saving: each part's rows, values and, for strings, dictionary."""
        content = []
        for part_key, part in list(self._parts.items()):
            part_rows, values = part.entries(rows)
            if len(part_rows):
                strings = part.decode(int(values.max()) + 1) if isinstance(part, StringPart) else []
                content.append((part_key, part_rows, values, strings))
        return content

    def ids(self, rows: int) -> list[str]:
        """The ids of the first `rows` rows."""
        return self._ids.ids(rows)

    def restore(
        self, ids: list[str], content: Sequence[tuple[PartKey, npt.NDArray[np.int32], npt.NDArray[Any], list[str]]]
    ) -> None:
        """Take in what ids() and part_entries() of another gave. self is empty."""
        for part_key, part_rows, values, strings in content:
            part = self._part(part_key)
            if isinstance(part, StringPart):
                part.encode(strings)
            part.extend(part_rows, values)
        self._ids.extend(ids)
        self._row_count = len(ids)

    def _part(self, part_key: PartKey) -> AnyPart:
        part = self._parts.get(part_key)
        if part is None:
            value_type = part_key[1]
            part = StringPart() if value_type is ValueType.STRING else Part(DTYPES[value_type])
            self._parts[part_key] = part
        return part

    def _extend(self, part_key: PartKey, rows: npt.NDArray[np.int32], values: Sequence[Any] | npt.NDArray[Any]) -> None:
        part = self._part(part_key)
        encoded = part.encode(values) if isinstance(part, StringPart) else np.asarray(values, DTYPES[part_key[1]])
        part.extend(rows, encoded)

    def _evaluate(self, node: Node, n: int) -> Bools:
        match node:
            case And():
                mask = self._evaluate(node.parts[0], n)
                for part in node.parts[1:]:
                    mask &= self._evaluate(part, n)
                return mask
            case Or():
                return self._any(node, n)
            case Not():
                return ~self._evaluate(node.part, n)
            case Has():
                return self._present(node.field, n)
            case Comparison():
                return self._compare(node, n)
            case _:
                assert_never(node)

    def _any(self, node: Or, n: int) -> Bools:
        mask = np.zeros(n, bool)
        one_of: defaultdict[Field, list[str]] = defaultdict(list)
        for part in node.parts:
            if isinstance(part, Comparison) and part.operator is Operator.EQUAL and type(part.literal) is str:
                one_of[part.field].append(part.literal)  # hundreds of values in one pass
            else:
                mask |= self._evaluate(part, n)
        for field, literals in one_of.items():
            mask |= self._equal_strings(field, literals, n)
        return mask

    def _present(self, field: Field, n: int) -> Bools:
        if field.kind is FieldKind.ID:
            return np.ones(n, bool)
        mask = np.zeros(n, bool)
        for value_type in ValueType:
            part = self._parts.get((_key(field), value_type))
            if part is not None:
                part.mark(mask, np.ones(len(part.entries(n)[0]), bool))
        return mask

    def _equal_strings(self, field: Field, literals: Sequence[str], n: int) -> Bools:
        if field.kind is FieldKind.ID:
            return self._ids.equal(n, literals)
        mask = np.zeros(n, bool)
        part = self._parts.get((_key(field), ValueType.STRING))
        if isinstance(part, StringPart):
            part.mark(mask, part.equal(part.entries(n)[1], literals))
        return mask

    def _compare(self, node: Comparison, n: int) -> Bools:
        field, how, literal = node.field, node.operator, node.literal
        text = literal.text if isinstance(literal, Instant) else literal
        if isinstance(text, str) and how is Operator.EQUAL:
            mask = self._equal_strings(field, [text], n)
        elif isinstance(text, str) and field.kind is FieldKind.ID:
            mask = self._ids.compare(n, how, text)
        else:
            mask = np.zeros(n, bool)
        if field.kind is not FieldKind.ID:
            for value_type in ValueType:
                part = self._parts.get((_key(field), value_type))
                hits = None if part is None else _hits(part, value_type, n, how, literal)
                if part is not None and hits is not None:
                    part.mark(mask, hits)
        return mask


def _hits(part: AnyPart, value_type: ValueType, n: int, how: Operator, literal: Literal) -> Bools | None:
    """Which of the part's entries in the first n rows compare so; None where none can.

    Equality of strings is not looked at: _equal_strings has dealt with it.
    """
    hits: Bools | None = None
    match value_type, literal:
        case ValueType.BOOLEAN, bool():
            hits = part.entries(n)[1] == literal
        case _, bool():
            pass
        case ValueType.INTEGER, int() | float():
            hits = compare_integers(part.entries(n)[1], how, literal)
        case ValueType.DOUBLE, int() | float():
            hits = compare_doubles(part.entries(n)[1], how, literal)
        case ValueType.TIMESTAMP, Instant():
            hits = compare_integers(part.entries(n)[1], how, literal.us)
        case ValueType.STRING, str() | Instant() if how is not Operator.EQUAL and isinstance(part, StringPart):
            hits = part.compare(part.entries(n)[1], how, literal if isinstance(literal, str) else literal.text)
    return hits


def _key(field: Field) -> str:
    return field.key if field.kind is FieldKind.METADATA else field.kind.value


def _collect(
    entries: defaultdict[PartKey, tuple[list[int], list[Any]]], key: str, row: int, value: MetadataValue
) -> None:
    for element in value if isinstance(value, tuple) else (value,):
        rows, values = entries[key, _TYPES[type(element)]]
        rows.append(row)
        values.append(microseconds(element) if isinstance(element, datetime) else element)
    if value == ():
        rows, values = entries[key, ValueType.EMPTY_LIST]
        rows.append(row)
        values.append(True)


def _decoded(part: AnyPart, values: npt.NDArray[Any]) -> Sequence[Any] | npt.NDArray[Any]:
    if not isinstance(part, StringPart):
        return values
    strings = part.decode(int(values.max()) + 1)
    return [strings[code] for code in values.tolist()]
