"""Splits text into passages that a model takes whole: sentences packed up to a number of tokens, with overlap.

Text is first cut into pieces along its own structure: sentences and paragraphs; where one is too long its lines, then
its words, then runs of characters. The pieces partition the text and a passage is a run of pieces: nothing is lost.
Text of any size may stand between two boundaries, and a model may see one token in all of it, as WordPiece does in a
word of more than 100 characters. So what is counted, a passage and its overlap each have a size in characters too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

TokenCounter = Callable[[Sequence[str]], list[int]]
"""Tokens of each text, without the special tokens that a model adds around it."""

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
# The lookbehind and the possessive ++ keep it linear: a line of nothing but dots is tried once, not from each dot.
_SENTENCE = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*\s+|[。！？]+[」』”’）]*\s*|\n[ \t]*\n\s*")
_FINER = (re.compile(r"\n+"), re.compile(r"\s+"))
COUNTED_CHARACTERS = 16_000  # of one text at most: at four bytes each within any sensible limit of a server
_CHARACTERS_PER_TOKEN = 32  # at most: language has 2 to 6, indented code 10
_PASSAGE_CHARACTERS = 200_000  # at most, for models of very long texts: like COUNTED_CHARACTERS
_FULL_ENOUGH = 0.75  # a passage this full ends where a paragraph does


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a text: text[start:end] without the white space around it."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    tokens: int
    ends_paragraph: bool


def split(
    text: str,
    *,
    max_tokens: int,
    overlap_tokens: int,
    count_tokens: TokenCounter,
    whole: Sequence[tuple[int, int]] = (),
) -> list[Passage]:
    """Cut text into passages of at most max_tokens tokens, and max_characters(max_tokens) characters, each, in order.

    Each passage but the first begins with the last whole pieces of the one before, up to overlap_tokens and
    max_characters(overlap_tokens), and none that it repeated itself: no character is in more than two passages. Text
    of nothing but white space gives no passage. whole: stretches (start, end) that are one piece each, such as blocks
    of code, in order and apart; only one that does not fit is cut. Raises ValueError unless 0 <= overlap_tokens <
    max_tokens.
    """
    if not 0 <= overlap_tokens < max_tokens:
        raise ValueError(f"overlap_tokens must lie between 0 and max_tokens - 1, not {overlap_tokens} of {max_tokens}")
    runs = _pack(_pieces(text, whole, max_tokens, count_tokens), max_tokens, overlap_tokens)
    stretches = ((start, end, text[start:end].strip()) for start, end in runs)
    return [Passage(stripped, start, end) for start, end, stripped in stretches if stripped]


def max_characters(tokens: int) -> int:
    """How many characters text of so many tokens may have: 32 a token, and 200,000 at most."""
    return min(tokens * _CHARACTERS_PER_TOKEN, _PASSAGE_CHARACTERS)


def _pack(pieces: Sequence[_Piece], max_tokens: int, overlap_tokens: int) -> Iterator[tuple[int, int]]:
    """Runs of pieces as (start, end), each as long as fits."""
    first, fresh, tokens = 0, 0, 0  # fresh: the first piece that no run has yet
    for index, piece in enumerate(pieces):
        full = tokens >= _FULL_ENOUGH * max_tokens and pieces[index - 1].ends_paragraph
        long = piece.end - pieces[first].start > max_characters(max_tokens)
        if index > fresh and (full or long or tokens + piece.tokens > max_tokens):
            yield pieces[first].start, piece.start
            room = min(overlap_tokens, max_tokens - piece.tokens)
            start = max(piece.start - max_characters(overlap_tokens), piece.end - max_characters(max_tokens))
            first, tokens = index, 0
            while first > fresh and tokens + pieces[first - 1].tokens <= room and pieces[first - 1].start >= start:
                first -= 1
                tokens += pieces[first].tokens
            fresh = index
        tokens += piece.tokens
    if pieces:
        yield pieces[first].start, pieces[-1].end


def _pieces(text: str, whole: Sequence[tuple[int, int]], max_tokens: int, count_tokens: TokenCounter) -> list[_Piece]:
    """A partition of text into pieces of at most max_tokens tokens; white space belongs to the piece before it."""
    sentences: list[tuple[int, int]] = []
    at = 0
    for start, end in [*whole, (len(text), len(text))]:
        sentences += [*_cut(text, at, start, _SENTENCE), *([(start, end)] if start < end else [])]
        at = end
    paragraph_ends = {end for start, end in sentences if _PARAGRAPH.search(text, start, end)}
    paragraph_ends.update(end for _, end in whole)
    longest = min(COUNTED_CHARACTERS, max_characters(max_tokens))
    spans = [span for start, end in sentences for span in _short(text, start, end, longest)]
    return [
        _Piece(*part, part[1] in paragraph_ends)
        for span in _counted(text, spans, count_tokens)
        for part in _fit(text, span, max_tokens, count_tokens)
    ]


def _short(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """text[start:end], or its lines, words or runs of characters, such that each has at most `longest` characters."""
    if end - start <= longest:
        yield start, end
        return
    for span in _finer(text, start, end, longest):
        yield from _short(text, *span, longest)


def _fit(
    text: str, piece: tuple[int, int, int], max_tokens: int, count_tokens: TokenCounter
) -> Iterator[tuple[int, int, int]]:
    """The piece (start, end, tokens), or its lines, words or runs of characters, such that each fits."""
    start, end, tokens = piece
    if tokens <= max_tokens or end - start == 1:
        yield piece
        return
    for part in _counted(text, _finer(text, start, end, (end - start + 1) // 2), count_tokens):
        yield from _fit(text, part, max_tokens, count_tokens)


def _finer(text: str, start: int, end: int, run: int) -> list[tuple[int, int]]:
    """text[start:end] in lines, or its one line in words, or its one word in runs of so many characters."""
    for boundary in _FINER:
        if len(spans := _cut(text, start, end, boundary)) > 1:
            return spans
    return [(at, min(at + run, end)) for at in range(start, end, run)]


def _counted(text: str, spans: Sequence[tuple[int, int]], count_tokens: TokenCounter) -> Iterator[tuple[int, int, int]]:
    counts = count_tokens([text[start:end] for start, end in spans]) if spans else []
    for (start, end), tokens in zip(spans, counts, strict=True):
        yield start, end, tokens


def _cut(text: str, start: int, end: int, boundary: re.Pattern[str]) -> list[tuple[int, int]]:
    """Cut text[start:end] after every boundary."""
    cuts = [match.end() for match in boundary.finditer(text, start, end) if match.end() > start]
    edges = [start, *cuts] if cuts and cuts[-1] == end else [start, *cuts, end]
    return [(left, right) for left, right in pairwise(edges) if left < right]
