"""Filter text to tree.

lark's LALR parser keeps a stack of its own and parentheses are counted beforehand, so no text can exhaust Python's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache

from lark import Token, Tree, UnexpectedInput

from nearshore.index.errors import InvalidFilterError
from nearshore.index.filters.grammar import (
    QUOTED_OR_PARENTHESIS,
    column,
    filter_parser,
    has_wildcard,
    is_quoted,
    member_parts,
)
from nearshore.index.filters.instant import parse_instant_us
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

MAX_DEPTH = 32
"""How deep parentheses may be nested."""

_NUMBER = re.compile(r"(\d+)|\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+", re.ASCII)
_OWN_FIELDS = {kind.value: kind for kind in FieldKind if kind is not FieldKind.METADATA}
_KEYWORDS = {"and": "AND", "or": "OR", "not": "NOT", "&&": "AND", "||": "OR"}
_Tree = Tree[Token]


def parse(text: str, max_bytes: int = 8192) -> Filter:
    """Parse a filter; docs/filters.md is its reference.

    text: not blank (no filter is the caller's own case); max_bytes: of UTF-8, at most.
    Raises InvalidFilterError with the column (1 is the first character) and what to write instead.
    """
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > max_bytes:
        raise InvalidFilterError(
            f"The filter has {size_bytes} bytes, more than {max_bytes}.",
            "Shorten it, or mark the documents you mean with a metadata key of their own.",
            column=1,
        )
    return _parse(text)


@lru_cache(maxsize=256)
def _parse(text: str) -> Filter:
    if not text.strip():
        raise InvalidFilterError("The filter is blank.", "Leave it out, or write a comparison.", column=1)
    _check_depth(text)
    try:
        tree = filter_parser().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    return Filter(_condition(tree))


def _check_depth(text: str) -> None:
    depth = 0
    for match in QUOTED_OR_PARENTHESIS.finditer(text):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth > MAX_DEPTH:
            raise InvalidFilterError(
                f"The filter nests parentheses deeper than {MAX_DEPTH}, at column {match.start() + 1}.",
                'Flatten it; one of many values is written key = ("a" OR "b" OR "c").',
                column=match.start() + 1,
            )


def _syntax_error(text: str, error: UnexpectedInput) -> InvalidFilterError:
    position = error.pos_in_stream
    rest = text[position:] if position is not None and position >= 0 else ""
    token = getattr(error, "token", None)
    if not rest or (isinstance(token, Token) and token.type == "$END"):
        return InvalidFilterError(
            "The filter ends too soon.", "Finish the comparison and close every parenthesis.", column=len(text) + 1
        )
    remedies = {
        '"': 'Close the quote; a quote inside a string is written \\".',
        "'": "Close the quote; a quote inside a string is written \\'.",
        "!": "Write NOT x = v, or x != v.",
        "=": "Equality is one =.",
        ":": "Put strings and timestamps with a colon in quotes.",
        "\\": "A backslash belongs inside quotes, written \\\\.",
    }
    at = (position or 0) + 1
    return InvalidFilterError(
        f"The filter has an unexpected {rest[0]!r} at column {at}.",
        remedies.get(rest[0], 'A filter is made of comparisons such as lang = "ko" AND year >= 2020.'),
        column=at,
    )


def _condition(tree: _Tree) -> Node:
    """What a part of the parse tree says of a document."""
    match tree.data:
        case "negation" | "minus":
            return Not(_condition(_subtree(tree, 0)))
        case "restriction":
            return _restriction(tree)
        case _:
            return _joined(tree, _condition)


def _joined(tree: _Tree, meaning: Callable[[_Tree], Node]) -> Node:
    parts = tuple(meaning(_subtree(tree, index)) for index in range(len(tree.children)))
    return Or(parts) if tree.data == "factor" else And(parts)  # juxtaposed factors are AND


def _subtree(tree: _Tree, index: int) -> _Tree:
    child = tree.children[index]
    assert isinstance(child, Tree)
    return child


def _token(tree: _Tree, index: int) -> Token:
    child = tree.children[index]
    assert isinstance(child, Token)
    return child


def _restriction(tree: _Tree) -> Node:
    name = _token(tree, 0)
    if len(tree.children) == 1:
        raise _stands_alone(name)
    field, comparator, argument = _field(name), _token(tree, 1), _subtree(tree, 2)
    if argument.data == "literal" and _token(argument, 0) == "*":
        return _presence(field, comparator)
    if comparator in {"=", ":", "!="}:
        _refuse_wildcards(argument)
        equal = _argument(argument, lambda literal: Comparison(field, Operator.EQUAL, literal))
        return And((Present(field), Not(equal))) if comparator == "!=" else equal
    if argument.data not in {"literal", "negative"}:
        raise InvalidFilterError(
            f"{comparator} at column {column(comparator)} compares with one value, not with several.",
            'Several values go with =, != and : only, as in key = ("a" OR "b").',
            column=column(comparator),
        )
    return _argument(argument, lambda literal: _ordering(field, comparator, literal))


def _refuse_wildcards(argument: _Tree) -> None:
    # AIP-160 lets * stand for any text here; taking it for the character would answer another question in silence.
    for token in argument.scan_values(lambda value: isinstance(value, Token)):
        if has_wildcard(token):
            raise InvalidFilterError(
                f"{str(token)[:64]} at column {column(token)} has a wildcard, which filters do not support.",
                r'Write "\*" for the character, key:* for any value, or compare with < and >= for a prefix.',
                column=column(token),
            )


def _argument(tree: _Tree, compare: Callable[[Literal], Node]) -> Node:
    """The comparison with a value, or with each of several values, joined as the parentheses join them."""
    match tree.data:
        case "literal":
            return compare(_literal(_token(tree, 0)))
        case "negative":
            return compare(_negative(_token(tree, 0)))
        case "restriction" if len(tree.children) == 1:
            return compare(_literal(_token(tree, 0)))
        case "minus" if _subtree(tree, 0).data == "restriction" and len(_subtree(tree, 0).children) == 1:
            return compare(_negative(_token(_subtree(tree, 0), 0)))
        case "restriction" | "negation" | "minus":
            token = next(iter(tree.scan_values(lambda value: isinstance(value, Token))))
            raise InvalidFilterError(
                f"The parentheses after a comparator hold more than values, at column {column(token)}.",
                'Write the values alone, as in key = ("a" OR "b"); put NOT before the key.',
                column=column(token),
            )
    return _joined(tree, lambda part: _argument(part, compare))


def _ordering(field: Field, comparator: Token, literal: Literal) -> Node:
    if isinstance(literal, bool):
        raise InvalidFilterError(
            f"{comparator} at column {column(comparator)} orders true or false, which have no order.",
            "Use = or !=.",
            column=column(comparator),
        )
    return Comparison(field, Operator(str(comparator)), literal)


def _presence(field: Field, comparator: Token) -> Node:
    if comparator != ":":
        raise InvalidFilterError(
            f"* at column {column(comparator)} does not go with {comparator}.",
            'Write key:* for "has any value", or quote the star if you mean the character.',
            column=column(comparator),
        )
    return Present(field)


def _stands_alone(token: Token) -> InvalidFilterError:
    keyword = _KEYWORDS.get(token.lower())
    if keyword is None:
        remedy = "Filters have no full-text search; write key = value, or key:*."
    elif token == keyword:
        remedy = f"{keyword} needs a comparison, or parentheses around several, beside it."
    else:
        remedy = f"Write {keyword} in capitals."
    return InvalidFilterError(
        f"{str(token)[:64]!r} at column {column(token)} stands alone.", remedy, column=column(token)
    )


def _field(token: Token) -> Field:
    key = ".".join(part for part, _ in member_parts(token))
    if key in _OWN_FIELDS:
        return Field(_OWN_FIELDS[key])
    if key.startswith("_") or not key:
        raise InvalidFilterError(
            f"There is no field {key[:64]!r}, named at column {column(token)}.",
            "Besides metadata keys there are _id, _title and _parent_id.",
            column=column(token),
        )
    return Field(FieldKind.METADATA, key)


def _literal(token: Token) -> Literal:
    parts = member_parts(token)
    if len(parts) == 1 and parts[0][1]:
        text = parts[0][0]
        us = parse_instant_us(text)
        return text if us is None else Instant(text, us)
    word = str(token)
    if any(is_quoted(part) for part in (word, word[-1])) or "*" in word or word == "null":
        raise InvalidFilterError(
            f"{word[:64]} at column {column(token)} is no value.",
            "A string is one pair of quotes, with any * inside it; documents without a key are found by NOT key:*.",
            column=column(token),
        )
    if word in {"true", "false"}:
        return word == "true"
    return _number(token) if _NUMBER.fullmatch(word) else word


def _negative(token: Token) -> Literal:
    if not _NUMBER.fullmatch(str(token)):
        raise InvalidFilterError(
            f"The minus at column {column(token) - 1} is not before a number.",
            "Quote a string that begins with a minus; put NOT before the key to exclude a value.",
            column=column(token) - 1,
        )
    return -_number(token)


def _number(token: Token) -> int | float:
    value = float(token)
    if not math.isfinite(value):
        raise InvalidFilterError(
            f"The number at column {column(token)} is too large.",
            "Numbers are 64-bit integers and doubles, up to 1.8e308.",
            column=column(token),
        )
    return int(token.lstrip("0") or "0") if token.isdecimal() else value
