"""Reads a retrieval test collection in the BEIR format and ranks its documents for each query through a server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from nearshore.cli import output
from nearshore.client import Client, Parts, Query
from nearshore.errors import InvalidArgumentError, NotFoundError
from nearshore_indexer.building import RefusedError
from nearshore_indexer.entries import Entry, Item
from nearshore_indexer.jsonl import read_object
from nearshore_indexer.sources import FormatReader, tell_named_pipe

QUERIES_AT_ONCE = 64
MAX_RELEVANCE = (1 << 31) - 1  # beyond any that a person gives; sums of 400 digits are more than a float holds
QUERY_FORM = "Each line is a JSON object with id (or _id), a non-empty string or an integer, and text, a string."


class EvaluationFileError(InvalidArgumentError):
    """A file of a test collection that cannot be used."""

    reason = "EVALUATION_FILE"


class EvaluationMismatchError(InvalidArgumentError):
    """Files of a test collection that do not belong together."""

    reason = "EVALUATION_MISMATCH"


class EvaluationFileNotFoundError(NotFoundError):
    """A file of a test collection that is not there."""

    reason = "EVALUATION_FILE_NOT_FOUND"


def read_queries(path: Path) -> dict[str, str]:
    """Texts by query id, of JSON lines with id (or _id) and text. Raises EvaluationFileError naming the line."""
    queries: dict[str, str] = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        query_id, text = _query(line, f"{path}:{number}")
        if query_id in queries:
            raise EvaluationFileError(
                f"{path}:{number}: an earlier line has the query id {query_id!r} too.", "Give each query its own id."
            )
        queries[query_id] = text
    return queries


def _query(line: str, place: str) -> tuple[str, str]:
    """Id and text of one line. Raises EvaluationFileError."""
    try:
        record = read_object(line)
    except RefusedError as refused:
        raise EvaluationFileError(f"{place}: {refused}.", QUERY_FORM) from refused
    query_id, text = record.get("_id", record.get("id")), record.get("text")
    # Judgements are text: there a number can be written in one way only, as an integer.
    if isinstance(query_id, int) and not isinstance(query_id, bool):
        query_id = str(query_id)
    if not isinstance(query_id, str) or not query_id:
        raise EvaluationFileError(f"{place}: id (or _id) is missing, empty or no string.", QUERY_FORM)
    if not isinstance(text, str):
        raise EvaluationFileError(f"{place}: text is missing or no string.", QUERY_FORM)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise EvaluationFileError(f"{place}: text has half of a surrogate pair, which is no character.", QUERY_FORM)
    return query_id, text


def read_judgements(path: Path, queries: Collection[str]) -> dict[str, dict[str, int]]:
    """Relevance by query id and document id, of lines: query, document, relevance (tabs), or TREC's four columns.

    queries: the known ids; a first line that names none of them and ends in no number is a header and skipped. A
    judgement may be repeated. Raises EvaluationFileError naming the line, also one that contradicts an earlier one.
    """
    judged: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        cells = _judgement_cells(line)
        if len(cells) == 3 and _is_integer(cells[2]):
            relevance = _relevance(cells[2], f"{path}:{number}")
            if judged.setdefault(cells[0], {}).setdefault(cells[1], relevance) != relevance:
                raise EvaluationFileError(
                    f"{path}:{number}: an earlier line judges document {cells[1]!r} for query {cells[0]!r} otherwise.",
                    "Keep one relevance of each document for a query.",
                )
        elif number > 1 or len(cells) != 3 or cells[0] in queries:
            raise EvaluationFileError(
                f"{path}:{number} is no judgement.",
                "Each line is: query id, tab, document id, tab, whole number; or the four columns of TREC.",
            )
    return judged


class Corpus:
    """Reads documents, and notes which of the judged ones are among them."""

    def __init__(self, lines: FormatReader, judged: Collection[str]) -> None:
        """lines: who reads them; judged: ids to look out for."""
        self.found: set[str] = set()
        """Those of them that came."""
        self._judged = judged
        self._lines = lines

    def read(self, stream: BinaryIO, file: str) -> Iterator[Item]:
        """See FormatReader."""
        for item in self._lines.read(stream, file):
            if isinstance(item, Entry) and item.document.id in self._judged:
                self.found.add(item.document.id)
            yield item


def rank(
    client: Client,
    collection: str,
    queries: Mapping[str, str],
    *,
    limit: int,
    exact: bool,
    report: Callable[[int], None],
) -> dict[str, Sequence[str]]:
    """Ids of the `limit` best documents for each query, best first; report is told how many queries are done.

    A document whose id equals the query's is ranked like any other.
    """
    rankings: dict[str, Sequence[str]] = {}
    parts = Parts(text=False, metadata=False)
    for chunk in chunks(queries):
        asked = [Query(text=text, limit=limit, exact=exact, parts=parts) for _, text in chunk]
        results = client.batch_search(collection, asked)
        for (query_id, _), result in zip(chunk, results, strict=True):
            rankings[query_id] = [hit.document.id for hit in result.hits]
        report(len(rankings))
    return rankings


def chunks(queries: Mapping[str, str]) -> Iterator[list[tuple[str, str]]]:
    """Ids and texts of the queries that are asked at once."""
    remaining = iter(queries.items())
    while chunk := list(islice(remaining, QUERIES_AT_ONCE)):
        yield chunk


def _judgement_cells(line: str) -> list[str]:
    """Query, document and relevance, if there are so many; TREC's second column, the iteration, is left out."""
    cells = line.split("\t") if "\t" in line else line.split()
    if len(cells) == 4:
        return [cells[0], *cells[2:]]
    return cells if "\t" in line else [line]


def _relevance(cell: str, place: str) -> int:
    """The number that the cell is. Raises EvaluationFileError for one that is none of a judgement."""
    number = cell.strip()
    digits = number.removeprefix("-").lstrip("0") or "0"
    # The length first: Python makes no number of thousands of digits.
    if len(digits) > len(str(MAX_RELEVANCE)) or int(digits) > MAX_RELEVANCE:
        raise EvaluationFileError(
            f"{place}: the relevance {number:.20}{'...' if len(number) > 20 else ''} is out of range.",
            f"Relevances are whole numbers from -{MAX_RELEVANCE:,} to {MAX_RELEVANCE:,}.",
        )
    return -int(digits) if number.startswith("-") else int(digits)


def _text(path: Path) -> str:
    tell_named_pipe(str(path), output.warn)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise EvaluationFileNotFoundError(f"There is no file {path}.", "Check its name.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationFileError(f"{path} cannot be read: {error}.", "It must be a file of UTF-8 text.") from error


def _is_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()
