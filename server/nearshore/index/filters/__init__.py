"""Metadata filters: text (AIP-160) to a tree that documents and columns can be held against."""

from nearshore.index.filters.grammar import filter_parser, quoted
from nearshore.index.filters.parser import MAX_DEPTH, parse
from nearshore.index.filters.tree import (
    And,
    Comparison,
    Field,
    FieldKind,
    Filter,
    Instant,
    Literal,
    Node,
    Not,
    Operator,
    Or,
    Present,
)

__all__ = [
    "MAX_DEPTH",
    "And",
    "Comparison",
    "Field",
    "FieldKind",
    "Filter",
    "Instant",
    "Literal",
    "Node",
    "Not",
    "Operator",
    "Or",
    "Present",
    "filter_parser",
    "parse",
    "quoted",
]
