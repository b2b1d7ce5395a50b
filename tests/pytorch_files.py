"""Writes files as torch.save() does, without PyTorch, to test what reads them; written from the format."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np

Array = Any
_STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int8": "CharStorage",
}


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers, one behind the other; tensors that have the same one share it."""

    numbers: Array


@dataclass(frozen=True, eq=False)
class Tensor:
    """Some numbers of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def tensor(array: Array) -> Tensor:
    """A tensor with a storage of its own, row by row."""
    content = np.array(array, order="C")
    strides = tuple(each // content.itemsize for each in content.strides)
    return Tensor(Storage(content.reshape(-1)), 0, content.shape, strides)


def save(
    path: Path,
    state: object,
    *,
    protocol: int = 2,
    compression: int = zipfile.ZIP_STORED,
    order: str = "little",
    without: Sequence[str] = (),
) -> Path:
    """Write an archive of this state; Tensors in it become what PyTorch makes of its own.

    order: what is said of the numbers' bytes; without: records that are left out. Returns the path.
    """
    pickled, storages = _pickle(state, protocol)
    records: dict[str, str | bytes] = {"data.pkl": pickled, "byteorder": order, "version": "3\n"}
    records |= {f"data/{key}": storage.numbers.tobytes() for key, storage in enumerate(storages)}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            if name not in without:
                archive.writestr(f"archive/{name}", content)
    return path


def state_dict(tensors: Mapping[str, object]) -> OrderedDict[str, object]:
    """As a module gives it: with an attribute about versions."""
    state: Any = OrderedDict(tensors)
    state._metadata = OrderedDict({"": {"version": 1}, "embeddings": {"version": 1}})
    named: OrderedDict[str, object] = state
    return named


def _pickle(state: object, protocol: int) -> tuple[bytes, list[Storage]]:
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")

    def rebuild() -> None:
        """Is named in pickles and never called."""

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", *2 * ("_rebuild_tensor_v2",)
    vars(utils)["_rebuild_tensor_v2"] = rebuild
    for name in _STORAGES.values():
        vars(torch)[name] = type(name, (), {"__module__": "torch"})
    storages: list[Storage] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            if not isinstance(obj, Storage):
                return None
            if obj not in storages:
                storages.append(obj)
            kind = vars(torch)[_STORAGES[obj.numbers.dtype.name]]
            return ("storage", kind, str(storages.index(obj)), "cpu", obj.numbers.size)

        def reducer_override(self, obj: object) -> Any:
            if not isinstance(obj, Tensor):
                return NotImplemented
            return rebuild, (obj.storage, obj.offset, obj.shape, obj.strides, False, OrderedDict())

    stream = io.BytesIO()
    with patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        Pickler(stream, protocol).dump(state)
    return stream.getvalue(), storages
