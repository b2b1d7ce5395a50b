"""Reads plain text files, splitting each into passages with stable ids: path#1, path#2, ..."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from nearshore.documents.limits import MAX_ID_BYTES
from nearshore.records import Document
from nearshore_indexer.entries import Entry, Place, Rejection
from nearshore_indexer.passages import COUNTED_CHARACTERS, TokenCounter, split

MAX_FILE_BYTES = 256 << 20
_HEADING = re.compile(r"\A\s*#[ \t]+(?P<title>[^\n]+?)[ \t#]*(?:\n|\Z)")
_MAX_TITLE_TOKENS = 32
_NUMBER_BYTES = 10  # of the #n after the path


@dataclass(frozen=True, slots=True)
class Splitting:
    """How text is split; tokens as the model that will embed it counts them."""

    max_tokens: int  # of one passage with its title, special tokens not counted
    overlap_tokens: int
    count_tokens: TokenCounter


class PlainText:
    """Reads passages of one text file after another."""

    def __init__(self, splitting: Splitting) -> None:
        """splitting: how text becomes passages."""
        self._splitting = splitting
        self.passage_counts: dict[str, int] = {}
        """How many passages each parent, a file read whole, has."""

    def read(self, stream: BinaryIO, file: str) -> Iterator[Entry | Rejection]:
        """The passages of a file in order, or one rejection of the whole. OSError and EOFError are the stream's."""
        data = stream.read(MAX_FILE_BYTES + 1)
        if problem := _name_problem(file) or _content_problem(data):
            yield Rejection(Place(file), problem)
            return
        parent = parent_id(file)
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        title = self._title(text)
        number = 0
        for number, (line, passage) in enumerate(self._passages(text, title), 1):
            yield Entry(Document(f"{parent}#{number}", passage, title, parent), Place(file, line))
        self.passage_counts[parent] = number

    def _passages(self, text: str, title: str) -> Iterator[tuple[int, str]]:
        """(line, passage) in order."""
        splitting = self._splitting
        taken = splitting.count_tokens([title])[0] if title else 0
        max_tokens = splitting.max_tokens - taken
        passages = split(
            text,
            max_tokens=max_tokens,
            overlap_tokens=min(splitting.overlap_tokens, max_tokens // 2),
            count_tokens=splitting.count_tokens,
        )
        line, at = 1, 0
        for passage in passages:
            line += text.count("\n", at, passage.start) if passage.start > at else -text.count("\n", passage.start, at)
            at = passage.start
            yield line, passage.text

    def _title(self, text: str) -> str:
        """The heading that a Markdown file begins with, if it is short enough to stand before every passage."""
        heading = _HEADING.match(text)
        if heading is None:
            return ""
        title = heading["title"].strip()
        if len(title) > COUNTED_CHARACTERS:
            return ""
        return title if self._splitting.count_tokens([title])[0] <= _MAX_TITLE_TOKENS else ""


def parent_id(file: str) -> str:
    """The id that the passages of a file share: its path as it was named; standard input is "stdin"."""
    return "stdin" if file == "-" else PurePath(file).as_posix()


def _name_problem(file: str) -> str:
    try:
        size = len(parent_id(file).encode())
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
