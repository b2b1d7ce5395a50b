"""Where the numbers of a graph's constants go: into its file, or into one beside it.

A file of ONNX is one protobuf, which holds 2 GiB at most. Beside it, as "external data" in ONNX's words, there is no
such limit; and as each constant is written when it comes, none is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

_PAGE = 4096  # bytes: what starts at a multiple of them can be mapped into memory
_SMALL = 1024  # bytes: less stays in the graph, where shapes are inferred from it

KeepConstant = Callable[[str, npt.NDArray[Any]], Any]
"""Gives the TensorProto for a constant of this name and with these numbers."""


def keep_within(name: str, array: npt.NDArray[Any]) -> Any:
    """Implements KeepConstant: in the graph's file."""
    return numpy_helper.from_array(array, name)


@contextmanager
def keeping_beside(path: Path) -> Iterator[KeepConstant]:
    """Give a KeepConstant that writes to this file, which lies in the graph's folder."""
    with path.open("wb") as file:

        def keep(name: str, array: npt.NDArray[Any]) -> Any:
            if array.nbytes < _SMALL:
                return keep_within(name, array)
            offset = file.seek(-(-file.tell() // _PAGE) * _PAGE)
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            numbers = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            file.write(numbers.data)
            tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", path.name), ("offset", offset), ("length", numbers.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            return tensor

        yield keep
