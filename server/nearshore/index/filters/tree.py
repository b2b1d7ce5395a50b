"""The tree of a filter, and what it means for one document in plain Python.

The columns evaluate the same tree over all rows at once; a property test holds the two against each other.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from nearshore.index.filters.instant import microseconds
from nearshore.records import Document, MetadataValue, Scalar


class Operator(enum.StrEnum):
    """How a value is compared. `:` (has) is EQUAL: a list matches when any element does."""

    EQUAL = "="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="


class FieldKind(enum.Enum):
    """Where a field's value lies."""

    METADATA = "metadata"
    ID = "_id"
    TITLE = "_title"
    PARENT_ID = "_parent_id"


@dataclass(frozen=True, slots=True)
class Field:
    """A metadata key, or one of the document's own fields."""

    kind: FieldKind
    key: str = ""  # the metadata key; empty for the document's own fields

    def value(self, document: Document) -> MetadataValue | None:
        """What the document has there; None where it has nothing. An empty title or parent_id is nothing."""
        match self.kind:
            case FieldKind.METADATA:
                return document.metadata.get(self.key)
            case FieldKind.ID:
                return document.id
            case FieldKind.TITLE:
                return document.title or None
            case FieldKind.PARENT_ID:
                return document.parent_id or None


@dataclass(frozen=True, slots=True)
class Instant:
    """A string literal that reads as RFC 3339: compared as text with strings and as a moment with timestamps."""

    text: str
    us: Fraction  # microseconds since 1970


Literal = bool | int | float | str | Instant
_COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.LESS: operator.lt,
    Operator.LESS_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_EQUAL: operator.ge,
}


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """True where any value of the field compares so with the literal. Values of another type never do."""

    field: Field
    operator: Operator
    literal: Literal

    def __eq__(self, other: object) -> bool:
        """Equal comparisons mean the same: 1 is 1.0 but, unlike in Python, not true."""
        return isinstance(other, Comparison) and self._meaning() == other._meaning()

    def __hash__(self) -> int:
        """As equality has it."""
        return hash(self._meaning())

    def _meaning(self) -> tuple[Field, Operator, bool, Literal]:
        return self.field, self.operator, isinstance(self.literal, bool), self.literal

    def matches(self, document: Document) -> bool:
        """Whether the document matches."""
        found = self.field.value(document)
        values = found if isinstance(found, tuple) else () if found is None else (found,)
        return any(_compares(value, self.operator, self.literal) for value in values)


@dataclass(frozen=True, slots=True)
class Present:
    """True where the document has the field at all, be it an empty list."""

    field: Field

    def matches(self, document: Document) -> bool:
        """Whether the document matches."""
        return self.field.value(document) is not None


@dataclass(frozen=True, slots=True)
class Not:
    """True where the part is false."""

    part: Node

    def matches(self, document: Document) -> bool:
        """Whether the document matches."""
        return not self.part.matches(document)


@dataclass(frozen=True, slots=True)
class And:
    """True where all parts are."""

    parts: tuple[Node, ...]

    def matches(self, document: Document) -> bool:
        """Whether the document matches."""
        return all(part.matches(document) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """True where any part is."""

    parts: tuple[Node, ...]

    def matches(self, document: Document) -> bool:
        """Whether the document matches."""
        return any(part.matches(document) for part in self.parts)


Node = Comparison | Present | Not | And | Or


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter, immutable."""

    root: Node

    def matches(self, document: Document) -> bool:
        """Whether the document matches."""
        return self.root.matches(document)


def _compares(value: Scalar, how: Operator, literal: Literal) -> bool:
    compare = _COMPARE[how]
    match value, literal:
        case (bool(), _) | (_, bool()):
            return isinstance(value, bool) and isinstance(literal, bool) and compare(value, literal)
        case (int() | float(), int() | float()):
            return compare(value, literal)  # Python compares int with float exactly
        case (datetime(), Instant()):
            return compare(microseconds(value), literal.us)
        case (str(), str() | Instant()):
            return compare(value, literal.text if isinstance(literal, Instant) else literal)
    return False
