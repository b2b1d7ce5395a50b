"""The readers of all formats, made as one run wants them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from nearshore.documents.limits import Limits
from nearshore_indexer.building import Builder
from nearshore_indexer.columns import USUAL, Columns
from nearshore_indexer.delimited import Delimited
from nearshore_indexer.jsonl import JsonLines
from nearshore_indexer.shards import WHOLE, Shard
from nearshore_indexer.sources import Format, FormatReader, Reader, Source
from nearshore_indexer.text_files import Splitting, TextFiles, plain_pieces


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read."""

    limits: Limits
    splitting: Splitting  # of text files
    columns: Columns = USUAL
    timestamp_keys: Collection[str] = ()
    number_keys: Collection[str] = ()
    shard: Shard = WHOLE


class Input:
    """Everything that one run reads, and what was noticed on the way."""

    def __init__(self, sources: Sequence[Source], reading: Reading) -> None:
        """sources: what check_sources has found to be readable."""
        builder = Builder(
            reading.limits,
            timestamp_keys=reading.timestamp_keys,
            number_keys=reading.number_keys,
            shard=reading.shard,
        )
        self.passage_counts: dict[str, int] = {}
        """How many passages each parent, a text file read whole, has."""
        self.ignored_fields = builder.ignored_fields
        """Fields that no document has, and in how many records they were."""
        wanted = {source.format for source in sources}
        if Format.AUTO in wanted:
            wanted = wanted - {Format.AUTO} | {Format.JSONL, Format.TEXT}
        readers = {each: _reader(each, reading, builder, self.passage_counts) for each in wanted}
        self.reader = Reader(sources, readers, reading.shard)


def _reader(wanted: Format, reading: Reading, builder: Builder, passage_counts: dict[str, int]) -> FormatReader:
    match wanted:
        case Format.JSONL:
            return JsonLines(builder, reading.columns)
        case Format.CSV:
            return Delimited(builder, reading.columns)
        case Format.PARQUET:
            parquet: Callable[[Builder, Columns], FormatReader] = _imported("parquet").Parquet
            return parquet(builder, reading.columns)
        case Format.MARKDOWN:
            cut = _imported("markdown").markdown_pieces
            return TextFiles(cut, reading.splitting, reading.limits, passage_counts)
        case _:
            return TextFiles(plain_pieces, reading.splitting, reading.limits, passage_counts)


def _imported(module: str) -> Any:
    """A module of this package whose libraries take a quarter of a second to import, only when it is needed."""
    return importlib.import_module(f"nearshore_indexer.{module}")
