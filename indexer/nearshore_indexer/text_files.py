"""Reads text files, plain or Markdown, splitting each into passages with stable ids: path#1, path#2, ..."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from nearshore.documents.limits import MAX_ID_BYTES, Limits
from nearshore.documents.requests import DocumentInput
from nearshore_indexer.building import RefusedError, checked_document
from nearshore_indexer.entries import Entry, Item, Place, Rejection
from nearshore_indexer.passages import TokenCounter, split

MAX_FILE_BYTES = 256 << 20
_NUMBER_BYTES = 10  # of the #n after the path
_PIPE = re.compile(r"-|/dev/stdin|/(?:dev|proc/self)/fd/\d+")  # names that say nothing of what comes through
_DIGEST_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Splitting:
    """How text is split; tokens as the model that will embed it counts them."""

    max_tokens: int  # of one passage with its title, special tokens not counted
    overlap_tokens: int
    count_tokens: TokenCounter


@dataclass(frozen=True, slots=True)
class Piece:
    """One passage of a file."""

    title: str
    text: str
    start: int  # in the text of the file


Cutter = Callable[[str, Splitting], Iterator[Piece]]


def plain_pieces(text: str, splitting: Splitting) -> Iterator[Piece]:
    """The passages of plain text, in order; it has no title."""
    passages = split(
        text,
        max_tokens=splitting.max_tokens,
        overlap_tokens=splitting.overlap_tokens,
        count_tokens=splitting.count_tokens,
    )
    for passage in passages:
        yield Piece("", passage.text, passage.start)


class TextFiles:
    """Reads passages of one text file after another."""

    def __init__(self, cut: Cutter, splitting: Splitting, limits: Limits, passage_counts: dict[str, int]) -> None:
        """cut: how a text becomes passages; limits: what a document may hold.

        passage_counts: told how many passages each parent, a file read whole, has.
        """
        self._cut = cut
        self._splitting = splitting
        self._limits = limits
        self._passage_counts = passage_counts

    def read(self, stream: BinaryIO, file: str) -> Iterator[Item]:
        """The passages of a file in order, or one rejection of the whole. OSError and EOFError are the stream's."""
        data = stream.read(MAX_FILE_BYTES + 1)
        if problem := _name_problem(file) or _content_problem(data):
            yield Rejection(Place(file), problem)
            return
        parent = parent_id(file, data)
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        number, line, at = 0, 1, 0
        for number, piece in enumerate(self._cut(text, self._splitting), 1):
            line += text.count("\n", at, piece.start) - text.count("\n", piece.start, at)  # overlap goes back
            at = piece.start
            rest = 1 - (piece.start + len(piece.text)) / len(text)
            sent = DocumentInput(f"{parent}#{number}", piece.text, piece.title, parent)
            yield self._item(sent, Place(file, line), max(rest, 0.0))
        self._passage_counts[parent] = number

    def _item(self, sent: DocumentInput, place: Place, rest: float) -> Item:
        try:
            return Entry(checked_document(sent, self._limits), place, rest)
        except RefusedError as refused:
            return Rejection(place, str(refused), sent.id)


def parent_id(file: str, data: bytes) -> str:
    """The id that the passages of a file share: its path as it was named.

    Standard input, and a pipe that a shell made, have no name of their own: under a common one each text would replace
    the one before. They are "stdin-" and the first 12 hexadecimal digits of the SHA-256 of what came.
    """
    if _PIPE.fullmatch(file):
        return f"stdin-{hashlib.sha256(data).hexdigest()[:_DIGEST_DIGITS]}"
    return PurePath(file).as_posix()


def _name_problem(file: str) -> str:
    try:
        size = len(PurePath(file).as_posix().encode())
    except UnicodeEncodeError:
        return "the name of the file is not UTF-8, so no passage can be named after it"
    return "the path is too long to name passages after it" if size > MAX_ID_BYTES - _NUMBER_BYTES else ""


def _content_problem(data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        return f"the file is larger than {MAX_FILE_BYTES >> 20} MiB"
    nul = data.find(b"\0")
    if nul >= 0:
        return f"byte {nul + 1:,} is NUL: this is no text"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1:,} is not UTF-8"
    return ""
