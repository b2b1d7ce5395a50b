"""Random documents and filters that have something to do with each other."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from nearshore.index.filters import (
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
from nearshore.index.filters.instant import parse_instant_us
from nearshore.records import Document

KEYS = ["k", "a.b", "日 本", 'q"\\']
_TIMES = ["2024-05-01T12:00:00Z", "2024-05-01T12:00:00.000001Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
_FINER_TIMES = [*_TIMES, "2024-05-01T12:00:00.0000005Z", "2024-05-01T14:00:00+02:00", "0001-01-01T00:00:00+09:00"]

strings = st.sampled_from(["", "a", "b", "ab", "é", "日", "\U0001f600", "\uffff", "x\" \\*'\n", *_TIMES])
integers = st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]) | st.integers(-9, 9)
doubles = st.sampled_from([0.0, -0.0, 1.0, 0.5, -0.5, 2.0**53, 2.0**63, -(2.0**63), 5e-324, 1e300]) | st.floats(
    -9, 9, allow_nan=False
)
times = st.sampled_from([datetime.fromisoformat(text) for text in _TIMES]).map(lambda time: time.astimezone(UTC))
values = st.one_of(
    *(
        scalars | st.lists(scalars, max_size=3).map(tuple)
        for scalars in (strings, integers, doubles, st.booleans(), times)
    )
)
names = st.sampled_from(["", "a", "ab", "日"])
documents = st.builds(
    Document,
    id=st.sampled_from(["a", "b", "ab", "2024-05-01T12:00:00Z"]),
    text=st.just(""),
    title=names,
    parent_id=names,
    metadata=st.dictionaries(st.sampled_from(KEYS), values, max_size=3),
)


def _text_literal(text: str) -> Literal:
    us = parse_instant_us(text)
    return text if us is None else Instant(text, us)


fields = st.sampled_from(
    [*(Field(FieldKind.METADATA, key) for key in KEYS), *(Field(kind) for kind in FieldKind if kind.value[0] == "_")]
)
literals = st.one_of(
    (strings | st.sampled_from(_FINER_TIMES)).map(_text_literal),
    integers,
    st.sampled_from([2**63, -(2**63) - 1, 10**300]),
    doubles,
)
comparisons = st.builds(Comparison, fields, st.sampled_from(Operator), literals) | st.builds(
    Comparison, fields, st.just(Operator.EQUAL), st.booleans()
)


def _branches(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    parts = st.lists(children, min_size=1, max_size=4).map(tuple)
    return st.builds(Not, children) | st.builds(And, parts) | st.builds(Or, parts)


trees = st.recursive(comparisons | st.builds(Present, fields), _branches, max_leaves=8).map(Filter)


def render(node: Node) -> str:
    """The filter text of a tree."""
    match node:
        case Present(field):
            return f"{_name(field)}:*"
        case Comparison(field, operator, literal):
            return f"{_name(field)} {operator} {_value(literal)}"
        case Not(part):
            return f"NOT ({render(part)})"
        case And(parts):
            return " AND ".join(f"({render(part)})" for part in parts)
        case Or(parts):
            return " OR ".join(f"({render(part)})" for part in parts)


def _name(field: Field) -> str:
    return _quote(field.key) if field.kind is FieldKind.METADATA else field.kind.value


def _value(literal: Literal) -> str:
    match literal:
        case bool():
            return str(literal).lower()
        case Instant():
            return _quote(literal.text)
        case str():
            return _quote(literal)
    return repr(literal)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*").replace("\n", "\\n")
    return f'"{escaped}"'
