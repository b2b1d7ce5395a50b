"""Reads a retrieval test collection in the BEIR format and ranks its documents for each query through a server."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from nearshore.client import Client, Parts, Query
from nearshore.errors import InvalidArgumentError, NotFoundError

QUERIES_AT_ONCE = 64


class EvaluationFileError(InvalidArgumentError):
    """A file of a test collection that cannot be used."""

    reason = "EVALUATION_FILE"


class EvaluationFileNotFoundError(NotFoundError):
    """A file of a test collection that is not there."""

    reason = "EVALUATION_FILE_NOT_FOUND"


def read_queries(path: Path) -> dict[str, str]:
    """Texts by query id, of JSON lines with id (or _id) and text. Raises EvaluationFileError naming the line."""
    queries: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            queries[str(record["_id"] if "_id" in record else record["id"])] = str(record["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationFileError(
                f"{path}:{number} is no query ({error!r}).", "Each line is a JSON object with id (or _id) and text."
            ) from error
    return queries


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Relevance by query id and document id, of tab-separated lines: query, document, relevance; a header is skipped.

    Raises EvaluationFileError naming the line.
    """
    judged: dict[str, dict[str, int]] = {}
    for number, row in enumerate(csv.reader(_text(path).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE), 1):
        if not row or (number == 1 and not _is_integer(row[-1])):
            continue
        if len(row) != 3 or not _is_integer(row[2]):
            raise EvaluationFileError(
                f"{path}:{number} is no judgement.", "Each line is: query id, tab, document id, tab, whole number."
            )
        judged.setdefault(row[0], {})[row[1]] = int(row[2])
    return judged


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
    for chunk in _chunks(queries):
        asked = [Query(text=text, limit=limit, exact=exact, parts=parts) for _, text in chunk]
        results = client.batch_search(collection, asked)
        for (query_id, _), result in zip(chunk, results, strict=True):
            rankings[query_id] = [hit.document.id for hit in result.hits]
        report(len(rankings))
    return rankings


def _chunks(queries: Mapping[str, str]) -> Iterator[list[tuple[str, str]]]:
    remaining = iter(queries.items())
    while chunk := list(islice(remaining, QUERIES_AT_ONCE)):
        yield chunk


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise EvaluationFileNotFoundError(f"There is no file {path}.", "Check its name.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationFileError(f"{path} cannot be read: {error}.", "It must be a file of UTF-8 text.") from error


def _is_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()
