"""The grammar of AIP-160 (https://google.aip.dev/160) for lark's LALR(1) parser, and the decoding of its tokens."""

from __future__ import annotations

import re
from functools import cache

from lark import Lark, Token

from nearshore.index.errors import InvalidFilterError

# A MEMBER is one token because "a.b" is one flat key, and so that 3.5 stays one number.
_GRAMMAR = r"""
    ?expression: sequence ("AND" sequence)*
    ?sequence: factor+
    ?factor: term ("OR" term)*
    ?term: "NOT" simple -> negation
         | "-" simple   -> minus
         | simple
    ?simple: restriction
           | "(" expression ")"
    restriction: MEMBER [COMPARATOR argument]
    ?argument: MEMBER     -> literal
             | "-" MEMBER -> negative
             | "(" expression ")"

    COMPARATOR: "<=" | ">=" | "!=" | "<" | ">" | "=" | ":"
    MEMBER: /(?:PART)(?:\.(?:PART))*/
    %ignore /\s+/
"""
_STRING = r""""(?:[^"\\]|\\[\s\S])*"|'(?:[^'\\]|\\[\s\S])*'"""
_TEXT = r"""[^\s()<>=!:,."'\\-][^\s()<>=!:,."'\\]*"""
_PART = re.compile(f"{_STRING}|{_TEXT}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([\s\S]))")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "*": "*"}
_MEANINGFUL = re.compile(r'[\\"*\x00-\x1f\x7f-\x9f]')

QUOTED_OR_PARENTHESIS = re.compile(f"{_STRING}|[()]")


@cache
def filter_parser() -> Lark:
    """The parser of filters. It is made at the first call, for a twentieth of a second."""
    return Lark(
        _GRAMMAR.replace("PART", f"{_STRING}|{_TEXT}"), start="expression", parser="lalr", maybe_placeholders=False
    )


def quoted(text: str) -> str:
    """The string literal that means `text`, whatever characters it has; for programs that compose filters."""
    return f'"{_MEANINGFUL.sub(_escape, text)}"'


def is_quoted(text: str) -> bool:
    """Whether a token, or a part of one, begins with a quote."""
    return text[0] in "\"'"


def member_parts(token: Token) -> list[tuple[str, bool]]:
    """The parts of a MEMBER that dots separate, escapes resolved, and whether each was quoted.

    Raises InvalidFilterError for an escape that does not exist.
    """
    return [
        (_unescape(part, token) if is_quoted(part) else part, is_quoted(part)) for part in _PART.findall(str(token))
    ]


def has_wildcard(token: Token) -> bool:
    """Whether a * stands there that no backslash precedes."""
    return "*" in _ESCAPE.sub("", str(token))


def column(token: Token) -> int:
    """The token's first character, counted from 1."""
    return (token.start_pos or 0) + 1


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return f"\\{character}" if character in '\\"*' else f"\\u{ord(character):04x}"


def _unescape(literal: str, token: Token) -> str:
    def character(match: re.Match[str]) -> str:
        short, long, single = match.groups()
        code_point = int(short or long or "0", 16)
        if single in _ESCAPED:
            return _ESCAPED[single]
        if single is None and code_point < 0x110000 and not 0xD800 <= code_point < 0xE000:
            return chr(code_point)
        raise InvalidFilterError(
            f"The string at column {column(token)} has the unknown escape {match.group()!r}.",
            r"Escapes are \" \' \\ \* \n \t \r \uXXXX \UXXXXXXXX; write a backslash as \\.",
            column=column(token),
        )

    return _ESCAPE.sub(character, literal[1:-1])
