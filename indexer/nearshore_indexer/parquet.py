"""Reads Parquet files: a document a row, a few hundred rows at a time; metadata keeps its types."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nearshore.documents.requests import Timestamp
from nearshore_indexer.building import Builder, Fields, RefusedError
from nearshore_indexer.columns import Columns
from nearshore_indexer.entries import Elsewhere, Item, Place

BATCH_ROWS = 500
METADATA = "metadata"  # a struct of this name is taken apart
_US_PER_S = 1_000_000
_SCALARS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_boolean,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_null,
)
_STRINGS = _SCALARS[:3]


class Parquet:
    """Reads documents of one Parquet file after another."""

    def __init__(self, builder: Builder, columns: Columns) -> None:
        """builder: makes documents of rows; columns: where their parts are. The others are metadata."""
        self._builder = builder
        self._columns = columns

    def read(self, stream: BinaryIO, file: str) -> Iterator[Item]:
        """Documents and rejected rows in order; a place's line is the row, from 1. Null and NaN are absence.

        Timestamps without a zone are taken as UTC, finer ones are cut to microseconds. A file that cannot be read,
        or not any further, is one rejection. OSError is the stream's.
        """
        done = 0
        try:
            opened = pq.ParquetFile(stream)
            columns, metadata = self._layout(opened.schema_arrow)
            ignored = set(opened.schema_arrow.names) - {*columns.present(), *metadata}
            self._builder.ignored_fields.update(dict.fromkeys(ignored, opened.metadata.num_rows))
            wanted = [*columns.present(), *metadata]
            for batch in opened.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
                yield from self._items(batch, columns, metadata, Place(file, done))
                done += batch.num_rows
        except RefusedError as refused:
            yield self._builder.reject(Place(file), str(refused))
        except pa.ArrowException as error:
            behind = f" behind row {done:,}" if done else ""
            yield self._builder.reject(Place(file), f"it cannot be read as Parquet{behind}: {_said(error)}")

    def _layout(self, schema: pa.Schema) -> tuple[Columns, list[str]]:
        """Where the parts of a document are, and which columns are metadata. Raises RefusedError."""
        columns = self._columns.resolved(schema.names)
        for name in columns.present():
            found = _plain_type(schema.field(name).type)
            number = pa.types.is_integer(found) and name in {columns.id, columns.parent_id}
            if not (number or _is(found, _STRINGS)):
                raise RefusedError(f"the column {name!r} is of type {found}, not string")
        return columns, [name for name in columns.metadata(schema.names) if self._is_metadata(schema.field(name))]

    def _is_metadata(self, field: pa.Field) -> bool:
        found = _plain_type(field.type)
        return (field.name == METADATA and pa.types.is_struct(found)) or _is_readable(found)

    def _items(self, batch: pa.RecordBatch, columns: Columns, metadata: Sequence[str], before: Place) -> Iterator[Item]:
        """The rows of a batch that stands behind `before`; those of other shards are not even taken apart."""
        ids = ["" if found is None else str(found) for found in _values(batch.column(columns.id))]
        mine = [row for row, found in enumerate(ids) if not found or self._builder.shard.owns(found)]
        if len(mine) < len(ids):
            yield Elsewhere(Place(before.file, before.line + len(ids)))
            batch = _chosen(batch, mine)
        for row, fields in zip(mine, _rows(batch, columns, metadata), strict=True):
            place = Place(before.file, before.line + row + 1)
            if isinstance(fields, Fields):
                yield self._builder.build(fields, place)
            else:
                yield self._builder.reject(place, f"it cannot be converted: {fields}", ids[row])


def _chosen(batch: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
    """These rows; take() does not know every type, such as string_view."""
    return pa.concat_batches([batch.slice(0, 0), *(batch.slice(row, 1) for row in rows)])


def _rows(batch: pa.RecordBatch, columns: Columns, metadata: Sequence[str]) -> list[Fields | str]:
    """What each row holds, or why that cannot be converted."""
    try:
        parts = (_values(batch.column(name)) if name else [None] * batch.num_rows for name in columns.names())
        return [Fields(*row) for row in zip(*parts, _metadata_rows(batch, metadata), strict=True)]
    except pa.ArrowException as error:
        if batch.num_rows == 1:
            return [_said(error)]
        return [fields for row in range(batch.num_rows) for fields in _rows(batch.slice(row, 1), columns, metadata)]


def _metadata_rows(batch: pa.RecordBatch, names: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in range(batch.num_rows)]
    for name in names:
        column = batch.column(name)
        found = {name: column}
        if pa.types.is_struct(column.type):
            fields = zip(column.type, column.flatten(), strict=True)
            found = {field.name: child for field, child in fields if _is_readable(_plain_type(field.type))}
        for key, child in found.items():
            for row, value in zip(rows, _values(child), strict=True):
                if value is not None:
                    row[key] = value
    return rows


def _values(column: pa.Array) -> list[Any]:
    """The values of a column as metadata has them; None for null and NaN."""
    if pa.types.is_dictionary(column.type):
        return _values(column.dictionary_decode())
    if _is_list(column.type):
        elements = iter(_values(column.flatten()))
        lengths = column.value_lengths().to_pylist()
        return [None if length is None else [next(elements) for _ in range(length)] for length in lengths]
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        moments = pc.cast(column, options=pc.CastOptions(pa.timestamp("us"), allow_time_truncate=True))
        return [value if value is None else _timestamp(value) for value in moments.cast(pa.int64()).to_pylist()]
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        numbers = column.cast(pa.float64()).to_pylist()
        return [None if value is None or math.isnan(value) else value for value in numbers]
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in raw]


def _timestamp(since_epoch_us: int) -> Timestamp:
    return Timestamp(since_epoch_us // _US_PER_S, since_epoch_us % _US_PER_S * 1_000)


def _said(error: pa.ArrowException) -> str:
    """Its first line: what follows is about Arrow."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _is_readable(found: pa.DataType) -> bool:
    return _is(_plain_type(found.value_type) if _is_list(found) else found, _SCALARS)


def _plain_type(found: pa.DataType) -> pa.DataType:
    """The type of the values, whether they are written out or numbers of a dictionary."""
    return found.value_type if pa.types.is_dictionary(found) else found


def _is_list(found: pa.DataType) -> bool:
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found))


def _is(found: pa.DataType, kinds: Sequence[Any]) -> bool:
    return any(is_kind(found) for is_kind in kinds)
