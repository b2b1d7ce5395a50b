"""The files of a saved view: what a snapshot holds of an index. Digests and manifest are the snapshot's business."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nearshore.errors import StorageFullError
from nearshore.index.columns import Columns
from nearshore.index.errors import CorruptIndexError
from nearshore.index.parts import ValueType
from nearshore.index.scan import Bools
from nearshore.index.sealed import Sealed
from nearshore.index.view import IndexView
from nearshore.records import Metric

FORMAT_VERSION = 1
INDEX_FILE = "index.json"
ROWS_FILE = "rows.f32"
ALIVE_FILE = "alive.npy"
COLUMNS_FILE = "columns.npz"
SEALED_FILE = "sealed.faiss"
_COPY_ROWS = 8_192
_REMEDY = "Delete this snapshot; another one, or the store, is used instead."
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SavedParts:
    """What load_parts found, besides the rows themselves."""

    alive: Bools  # (n,)
    columns: Columns
    sealed: Sealed | None
    generation: int


def save(view: IndexView, folder: Path) -> list[str]:
    """Write a view into an existing folder, from any thread; returns the names of the files, all of them synced.

    Raises StorageFullError; what was written by then is left for the caller to delete.
    """
    names = [INDEX_FILE, ROWS_FILE, ALIVE_FILE, COLUMNS_FILE] + ([SEALED_FILE] if view.sealed else [])
    try:
        with (folder / ROWS_FILE).open("wb") as file:
            for start in range(0, view.n, _COPY_ROWS):
                file.write(np.ascontiguousarray(view.rows[start : start + _COPY_ROWS]).data)
        np.save(folder / ALIVE_FILE, view.alive)
        np.savez(folder / COLUMNS_FILE, allow_pickle=False, **_columns_arrays(view.columns, view.n))
        if view.sealed:
            view.sealed.save(folder / SEALED_FILE)
        (folder / INDEX_FILE).write_text(json.dumps(_description(view)) + "\n")
        for path in [*(folder / name for name in names), folder]:
            _sync(path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFullError(f"saving an index to {folder}") from error
        raise
    return names


def load_parts(folder: Path, dimensions: int, metric: Metric) -> SavedParts:
    """Read what save() wrote. Raises CorruptIndexError when it does not fit together or is not of these dimensions."""
    try:
        description = json.loads((folder / INDEX_FILE).read_text())
        found = tuple(description[key] for key in ("format_version", "dimensions", "metric"))
        if found != (FORMAT_VERSION, dimensions, metric.value):
            raise CorruptIndexError(
                f"{folder} holds an index of format, dimensions and metric {found}, not"
                f" {(FORMAT_VERSION, dimensions, metric.value)}.",
                _REMEDY,
            )
        alive = np.load(folder / ALIVE_FILE, allow_pickle=False)
        with (folder / COLUMNS_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            columns = _read_columns(arrays)
        sealed = Sealed.load(folder / SEALED_FILE, dimensions) if description["sealed_rows"] else None
        parts = SavedParts(alive, columns, sealed, description["generation"])
        row_counts = [len(alive), columns.row_count, (folder / ROWS_FILE).stat().st_size // (4 * dimensions)]
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptIndexError(f"{folder} does not hold a whole index: {error}.", _REMEDY) from error
    fitting = sealed is None or sealed.row_count == description["sealed_rows"] <= len(alive)
    if alive.dtype != bool or row_counts != [description["rows"]] * 3 or not fitting:
        raise CorruptIndexError(f"The files in {folder} are of different states: {row_counts} rows.", _REMEDY)
    return parts


def _description(view: IndexView) -> dict[str, object]:
    return {
        "format_version": FORMAT_VERSION,
        "dimensions": view.rows.shape[1],
        "metric": view.metric.value,
        "rows": view.n,
        "sealed_rows": view.sealed_rows,
        "generation": view.generation,
    }


def _columns_arrays(columns: Columns, row_count: int) -> dict[str, npt.NDArray[Any]]:
    content = columns.part_entries(row_count)
    arrays: dict[str, npt.NDArray[Any]] = {"keys": _bytes_of(json.dumps([part_key for part_key, *_ in content]))}
    _put_strings(arrays, "ids", columns.ids(row_count))
    for number, ((_, value_type), rows, values, strings) in enumerate(content):
        arrays[f"{number}.rows"], arrays[f"{number}.values"] = rows, values
        if value_type is ValueType.STRING:
            _put_strings(arrays, str(number), strings)
    return arrays


def _read_columns(arrays: Any) -> Columns:
    content = []
    for number, (key, type_name) in enumerate(json.loads(arrays["keys"].tobytes())):
        value_type = ValueType(type_name)
        strings = _strings(arrays, str(number)) if value_type is ValueType.STRING else []
        content.append(((key, value_type), arrays[f"{number}.rows"], arrays[f"{number}.values"], strings))
    columns = Columns()
    columns.restore(_strings(arrays, "ids"), content)
    return columns


def _put_strings(arrays: dict[str, npt.NDArray[Any]], name: str, strings: list[str]) -> None:
    encoded = [text.encode() for text in strings]
    arrays[f"{name}.text"] = np.frombuffer(b"".join(encoded), np.uint8)
    arrays[f"{name}.ends"] = np.cumsum([len(part) for part in encoded], dtype=np.int64)


def _strings(arrays: Any, name: str) -> list[str]:
    text, ends = arrays[f"{name}.text"].tobytes(), arrays[f"{name}.ends"].tolist()
    return [text[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]


def _bytes_of(text: str) -> U8:
    return np.frombuffer(text.encode(), np.uint8)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
