"""Cuts Markdown into passages along its headings: none crosses one, and each is titled by those it stands below.

Blocks of code and tables are kept whole where they fit. Front matter is no text, but its title stands above all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from markdown_it import MarkdownIt

from nearshore_indexer.passages import max_characters, split
from nearshore_indexer.text_files import Piece, Splitting

SEPARATOR = " > "  # between the headings of a title
MAX_TITLE_TOKENS = 32
_WHOLE = {"fence", "code_block", "html_block", "table_open"}
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?P<lines>(?:\w[\w-]*:[^\n]*\n|[ \t#-][^\n]*\n|\n)*?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)
_TITLE = re.compile(r"^title:[ \t]*(?P<quote>[\"']?)(?P<title>[^\n]*?)(?P=quote)[ \t]*$", re.MULTILINE)
_PARSER = MarkdownIt("commonmark").enable("table")
_PARSER.core.ruler.enableOnly(["normalize", "block"])  # what stands inside a paragraph decides nothing here


@dataclass(slots=True)
class _Section:
    """What stands between two headings."""

    depth: int  # of the heading above it; 0: none
    heading: str
    path: tuple[str, ...]  # the headings it stands below, this one included
    heading_start: int
    start: int
    end: int = 0
    whole: list[tuple[int, int]] = field(default_factory=list)  # blocks that are not to be cut


def markdown_pieces(text: str, splitting: Splitting) -> Iterator[Piece]:
    """The passages of a Markdown text, in order. Each heading is in a title or, where that has no room, in a text."""
    found: list[list[Piece]] = []
    behind: list[tuple[int, int]] = []  # depth of each section, and the first of its path that a title below it has
    for section in reversed(_sections(text)):
        shown_from = len(section.path)
        while behind and behind[-1][0] > section.depth:
            shown_from = min(shown_from, behind.pop()[1])
        if text[section.start : section.end].strip():
            first = _first_of_title(section.path, splitting)
            start = section.heading_start if first == len(section.path) else section.start
            found.append(_pieces(section, text, start, SEPARATOR.join(section.path[first:]), splitting))
        elif section.heading and shown_from == len(section.path):
            # Nothing below says its words: without a passage of its own no search would find it.
            first = _first_of_title(section.path[:-1], splitting)
            title = SEPARATOR.join(section.path[first:-1])
            passages = _cut(section.heading, title, (), splitting)
            found.append([Piece(title, piece.text, section.heading_start) for piece in passages])
        else:
            first = shown_from
        behind.append((section.depth, min(first, shown_from)))
    yield from itertools.chain.from_iterable(reversed(found))


def _pieces(section: _Section, text: str, start: int, title: str, splitting: Splitting) -> list[Piece]:
    """The passages of text[start : section.end]."""
    whole = [(each - start, end - start) for each, end in section.whole]
    passages = _cut(text[start : section.end], title, whole, splitting)
    return [Piece(title, piece.text, start + piece.start) for piece in passages]


def _cut(body: str, title: str, whole: Sequence[tuple[int, int]], splitting: Splitting) -> Iterator[Piece]:
    taken = splitting.count_tokens([title])[0] if title else 0
    max_tokens = splitting.max_tokens - taken
    passages = split(
        body,
        max_tokens=max_tokens,
        overlap_tokens=min(splitting.overlap_tokens, max_tokens // 2),
        count_tokens=splitting.count_tokens,
        whole=whole,
    )
    for passage in passages:
        yield Piece(title, passage.text, passage.start)


def _first_of_title(path: Sequence[str], splitting: Splitting) -> int:
    """Where in a path its title begins: without the outermost headings where all are too long for every passage.

    len(path) where even the last is too long.
    """
    most = min(MAX_TITLE_TOKENS, splitting.max_tokens // 2)
    titles = {first: SEPARATOR.join(path[first:]) for first in range(len(path))}
    titles = {first: title for first, title in titles.items() if len(title) <= max_characters(most)}
    counts = splitting.count_tokens(list(titles.values())) if titles else []
    return next((first for first, tokens in zip(titles, counts, strict=True) if tokens <= most), len(path))


def _sections(text: str) -> list[_Section]:
    matter = _FRONT_MATTER.match(text)
    began = matter.end() if matter else 0
    titled = _TITLE.search(matter["lines"]) if matter else None
    root = titled["title"].strip() if titled else ""
    starts = [began, *(match.end() for match in re.compile("\n").finditer(text, began)), len(text)]
    above: list[tuple[int, str]] = []  # depth and words of the open headings
    sections = [_Section(0, "", _path([root]), began, began)]
    tokens = _PARSER.parse(text[began:])
    for token, following in itertools.pairwise([*tokens, None]):
        if token is None or token.map is None:
            continue
        start, end = (starts[min(line, len(starts) - 1)] for line in token.map)
        if token.type == "heading_open" and token.level == 0:
            depth = int(token.tag[1:])
            words = " ".join(following.content.split()) if following is not None else ""
            above = [(each, name) for each, name in above if each < depth] + [(depth, words)]
            sections[-1].end = start
            path = _path([root, *(name for _, name in above)])
            sections.append(_Section(depth, words, path, start, end))
        elif token.type in _WHOLE:
            sections[-1].whole.append((start, end))
    sections[-1].end = len(text)
    return sections


def _path(headings: Sequence[str]) -> tuple[str, ...]:
    """Without those that are empty or say what the one above says, as a file's title and first heading often do."""
    return tuple(name for name, before in zip(headings, ["", *headings], strict=False) if name and name != before)
