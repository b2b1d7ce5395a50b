"""What reading a file yields: documents, and the places that could not be taken."""

from __future__ import annotations

from dataclasses import dataclass

from nearshore.errors import InvalidArgumentError, NotFoundError
from nearshore.records import Document


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the input something is."""

    file: str  # as the caller named it; "-" is standard input
    line: int = 0  # from 1; 0: the file as a whole

    def __str__(self) -> str:
        """How compilers name a place: file:line."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Entry:
    """One document read."""

    document: Document
    place: Place
    rest: float = 0.0  # share that comes after it, of what was read of its file: text is read whole before it is cut


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something that is not indexed, and why."""

    place: Place
    problem: str
    id: str = ""  # where one could be read
    source: str = ""  # the line as it was, as far as it is text; for writing it out again


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Something that another shard indexes."""

    place: Place


Item = Entry | Rejection | Elsewhere


class SourceError(InvalidArgumentError):
    """A file that cannot be read at all."""

    reason = "SOURCE_UNREADABLE"


class SourceNotFoundError(NotFoundError):
    """A file that is not there."""

    reason = "SOURCE_NOT_FOUND"
