"""The variables of a TensorFlow checkpoint ("tensor bundle"): NAME.index and NAME.data-00000-of-0000N.

The index is a table from names to where a tensor is: its type, shape, data file, offset, size and checksum. The data
files are the bare numbers, little-endian. Checkpoints of TensorFlow 2 name a variable by its path through Python
objects and add one string, the graph of these objects, which also has the name that the variable was made with; that
one is stable.
Messages: tensor_bundle.proto and trackable_object_graph.proto in github.com/tensorflow/tensorflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nearshore.bundle import read_file
from nearshore.export.errors import UnusableCheckpointError, absent
from nearshore.export.tensorflow.checksum import masked_crc32c
from nearshore.export.tensorflow.table import read_table
from nearshore.export.tensorflow.wire import (
    WireError,
    first_number,
    first_text,
    parts,
    read_message,
    read_varint,
)

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_TYPES: Mapping[int, npt.DTypeLike] = {1: "<f4", 3: "<i4", 9: "<i8", 10: "?", 19: "<f2"}  # as in types.proto
_LARGEST_AXIS = (1 << 31) - 1
_CHECKSUM_BYTES = 4
_MOST_FILES = 99_999  # of five digits
_COMPLETE = "Get the checkpoint again, with all its files: the index and every data file."


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor is."""

    key: str  # in the index
    kind: int
    shape: tuple[int, ...]
    file: str
    offset: int  # bytes
    size: int  # bytes
    checksum: int  # of its bytes, masked


class TensorBundle:
    """An open checkpoint."""

    def __init__(self, folder: Path, prefix: str) -> None:
        """prefix: of its files, relative to the folder. Raises UnusableCheckpointError when one is missing or cut."""
        self._folder = folder
        self._index = f"{prefix}.index"
        try:
            table = dict(read_table(read_file(folder / self._index)))
            header = read_message(table.pop(b""))
            shards = first_number(header, 1)
            if not 0 < shards <= _MOST_FILES or first_number(header, 2):
                raise WireError(f"it has {shards} data files, or their bytes are in reverse order")
            self._files = [f"{prefix}.data-{shard:05}-of-{shards:05}" for shard in range(shards)]
            self._entries = {name.decode(): self._read_entry(name, value) for name, value in table.items()}
        except (OSError, KeyError, ValueError) as error:  # WireError and UnicodeDecodeError are ValueErrors
            detail = getattr(error, "strerror", None) or error
            raise UnusableCheckpointError(folder, f"{self._index} cannot be read ({detail})", _COMPLETE) from error
        self._check_files()
        self.variables = self._named() if self.of_objects else self._entries
        """By the name that each was made with."""

    @property
    def files(self) -> list[Path]:
        """All its files."""
        return [self._folder / name for name in (self._index, *self._files)]

    @property
    def of_objects(self) -> bool:
        """Whether it is one of TensorFlow 2."""
        return _OBJECT_GRAPH in self._entries

    def read(self, entry: Entry) -> npt.NDArray[Any]:
        """The tensor. Raises UnusableCheckpointError when its bytes are damaged."""
        kind = np.dtype(_TYPES[entry.kind])
        content = self._read_bytes(entry)
        if masked_crc32c(content) != entry.checksum:
            raise UnusableCheckpointError(
                self._folder, f"{entry.file} is damaged: the checksum of {entry.key} is wrong", _COMPLETE
            )
        return np.frombuffer(content, kind).reshape(entry.shape)

    def _read_entry(self, name: bytes, content: bytes) -> Entry:
        message = read_message(content)
        if parts(message, 7):
            raise WireError(f"{name.decode()} is stored in slices")
        shape = [read_message(size) for size in parts(read_message((parts(message, 2) or [b""])[0]), 2)]
        file = self._files[first_number(message, 3)] if first_number(message, 3) < len(self._files) else ""
        kind, sizes = first_number(message, 1), tuple(first_number(size, 1) for size in shape)
        offset, size, checksum = (first_number(message, number) for number in (4, 5, 6))
        entry = Entry(name.decode(), kind, sizes, file, offset, size, checksum)
        if (
            not file
            or max(sizes, default=0) > _LARGEST_AXIS
            or (kind in _TYPES and entry.size != prod(sizes) * np.dtype(_TYPES[kind]).itemsize)
        ):
            raise WireError(f"{name.decode()} has a wrong size or place")
        return entry

    def _check_files(self) -> None:
        """Every data file must be there and as long as its tensors say."""
        for file in self._files:
            path = self._folder / file
            if not path.is_file():
                raise UnusableCheckpointError(self._folder, absent(self._folder, file), _COMPLETE)
            ends = {entry.offset + entry.size: name for name, entry in self._entries.items() if entry.file == file}
            if path.stat().st_size < max(ends, default=0):
                name = ends[max(ends)]
                raise UnusableCheckpointError(self._folder, f"{file} is cut off: {name} lies beyond its end", _COMPLETE)

    def _read_bytes(self, entry: Entry) -> bytes:
        with (self._folder / entry.file).open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.size)

    def _named(self) -> Mapping[str, Entry]:
        """By name, or by key where a name is not unique; keys that no object has stay as they are."""
        keys = {key: key for key in self._entries if key != _OBJECT_GRAPH}
        for name, key in self._names_in_objects():
            keys.pop(key, None)
            keys[name if keys.get(name, key) == key else key] = key
        return {name: self._entries[key] for name, key in keys.items()}

    def _names_in_objects(self) -> Iterator[tuple[str, str]]:
        """Name and key of every variable that the graph of objects knows."""
        entry = self._entries[_OBJECT_GRAPH]
        try:
            graph = read_message(_guarded_text(self._read_bytes(entry), entry.checksum))
            for node in parts(graph, 1):
                for attribute in parts(read_message(node), 2):
                    fields = read_message(attribute)
                    key = first_text(fields, 3)
                    if key in self._entries:
                        yield first_text(fields, 2) or key, key
        except WireError as error:
            raise UnusableCheckpointError(
                self._folder, f"{entry.file}: {_OBJECT_GRAPH} cannot be read ({error})", _COMPLETE
            ) from error


def _guarded_text(content: bytes, checksum: int) -> bytes:
    """The one string of an entry of strings: its length, the length's checksum and itself. Raises WireError."""
    length, position = read_varint(content, 0)
    if length != len(content) - position - _CHECKSUM_BYTES:
        raise WireError("its length is wrong")
    if masked_crc32c(length.to_bytes(4, "little") + content[position:]) != checksum:  # of the length as four bytes
        raise WireError("its checksum is wrong")
    return content[position + _CHECKSUM_BYTES :]
