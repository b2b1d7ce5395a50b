"""A file of torch.save(): a zip archive of a pickle that describes tensors, and of their numbers.

ARCHIVE/data.pkl    the state dict (see `pickled`)
ARCHIVE/data/KEY    the numbers of a storage, one behind the other
ARCHIVE/byteorder   "little"; absent before PyTorch 2.1, which meant the same on all that wrote it

Nothing in it is compressed. PyTorch before 1.6 wrote pickles one after the other, with the numbers between.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np

from nearshore.export.errors import WeightsFileError
from nearshore.export.pytorch.pickled import PickleError, Storage, StoredTensor, read_state_dict
from nearshore.records import F32

_TYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_PICKLE, _ORDER = "data.pkl", "byteorder"
_ZIP, _PICKLED = b"PK\x03\x04", b"\x80"  # how files begin
_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error)  # what zipfile raises for it
_ENCRYPTED = 1


class PyTorchFile:
    """The tensors of an open file."""

    def __init__(self, path: Path) -> None:
        """Read what it describes and check that the numbers are there. Raises WeightsFileError."""
        self._bytes = path.stat().st_size
        self._zip = _open(path)
        self._records = {entry.filename: entry for entry in self._zip.infolist()}
        roots = [name.removesuffix(_PICKLE) for name in self._records if name.partition("/")[2] == _PICKLE]
        if len(roots) != 1:
            raise WeightsFileError(f"it is a zip archive without a {_PICKLE}")
        self._root = roots[0]
        if self._root + _ORDER in self._records and self._read(_ORDER) != b"little":
            raise WeightsFileError("its numbers are not in little-endian order")
        try:
            self._tensors = read_state_dict(self._read(_PICKLE))
        except PickleError as error:
            raise WeightsFileError(str(error)) from error
        for name, tensor in self._tensors.items():
            self._check(name, tensor)
        self._last: tuple[Storage, bytes] | None = None  # that was read: neighbours may share it

    def names(self) -> Iterable[str]:
        """Of all tensors."""
        return self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape."""
        return self._tensors[name].shape

    def kind(self, name: str) -> str:
        """Its type, as safetensors spell it."""
        return self._tensors[name].storage.kind

    def read(self, name: str) -> F32:
        """The tensor, as float32. Raises WeightsFileError when its numbers are damaged."""
        tensor = self._tensors[name]
        storage, kind = tensor.storage, _TYPES[tensor.storage.kind]
        if prod(tensor.shape) > storage.elements:  # else a file of some bytes could ask for any memory
            raise WeightsFileError(
                f"{name} of shape {tensor.shape} repeats its {storage.elements:,} numbers; save it with .contiguous()"
            )
        if self._last is None or self._last[0] != storage:
            self._last = storage, self._read(_record(storage))
        # Of an axis of one the stride says nothing, and may be any number.
        axes = zip(tensor.shape, tensor.strides, strict=True)
        strides = [stride * kind.itemsize if size > 1 else 0 for size, stride in axes]
        try:
            array = np.ndarray(tensor.shape, kind, self._last[1], tensor.offset * kind.itemsize, strides)
        except (ValueError, OverflowError) as error:  # of shapes without numbers, of which anything can be claimed
            raise WeightsFileError(f"{name} has a shape that is none ({error})") from error
        return np.array(array, np.float32, order="C")

    def _check(self, name: str, tensor: StoredTensor) -> None:
        storage = tensor.storage
        record = self._records.get(self._root + _record(storage))
        if record is None or record.file_size < storage.elements * _TYPES[storage.kind].itemsize:
            raise WeightsFileError(f"the numbers of {name} are missing")
        steps = ((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
        if 0 not in tensor.shape and tensor.offset + sum(steps) >= storage.elements:
            raise WeightsFileError(f"{name} reaches beyond its numbers")

    def _read(self, name: str) -> bytes:
        """A whole record, its checksum verified."""
        entry = self._records[self._root + name]
        plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & _ENCRYPTED
        if not plain or not entry.compress_size == entry.file_size <= self._bytes:
            raise WeightsFileError(f"its {name} is compressed, encrypted or damaged")
        try:
            content = self._zip.read(entry)
        except _DAMAGE as error:
            raise WeightsFileError(f"its {name} is damaged ({error})") from error
        if len(content) != entry.file_size:
            raise WeightsFileError(f"its {name} is cut off")
        return content


def _record(storage: Storage) -> str:
    return f"data/{storage.key}"


def _open(path: Path) -> zipfile.ZipFile:
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    if start.startswith(_PICKLED):
        raise WeightsFileError("it is in the format of PyTorch before 1.6")
    if start != _ZIP:
        raise WeightsFileError("it is not of torch.save()")
    try:
        return zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise WeightsFileError(f"it is damaged or cut off ({error})") from error
