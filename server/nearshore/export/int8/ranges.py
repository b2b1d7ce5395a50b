"""How large the activations of a network get, channel by channel, over texts that try it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper

from nearshore.export.graph.outputs import Contract
from nearshore.records import F32

Batch = npt.NDArray[np.int64]  # token ids (texts, tokens), without padding


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the greatest value of every channel."""

    low: F32  # (channels,)
    high: F32  # (channels,)

    def with_values(self, values: F32) -> Range:
        """Of these as well: (..., channels)."""
        axes = tuple(range(values.ndim - 1))
        return Range(np.minimum(self.low, values.min(axis=axes)), np.maximum(self.high, values.max(axis=axes)))


def layer_activations(model: Any) -> list[str]:
    """What the layers of a model made by write_encoder multiply with weights, in order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        node.input[0]
        for node in model.graph.node
        if node.op_type in {"MatMul", "Attention"} and node.output[0].startswith("layer.") and node.input[1] in weights
    ]


def observe(path: Path, contract: Contract, batches: Iterable[Batch]) -> Mapping[str, Range]:
    """Run a float32 model, as write_encoder wrote it, and note the ranges of all that its layers multiply."""
    session, names = _open(path)
    takes = [each.name for each in session.get_inputs()]
    kind = helper.tensor_dtype_to_np_dtype(contract.integers)
    ranges: dict[str, Range] = {}
    for ids in batches:
        values = {contract.ids: ids, contract.mask: np.ones_like(ids), contract.types: np.zeros_like(ids)}
        feeds = {name: values[name].astype(kind) for name in takes}
        for name, value in zip(names, session.run(names, feeds), strict=True):
            ranges[name] = ranges.get(name, _empty(value.shape[-1])).with_values(value)
    return ranges


def _open(path: Path) -> tuple[Any, list[str]]:
    """A session that gives what the layers multiply, and the names of that.

    Of a file, beside which the model's weights may lie. As bytes, it would hold all weights once more than that.
    """
    model = onnx.load_model(path, load_external_data=False)
    names = layer_activations(model)
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    observed = path.with_name("observed.onnx")
    try:
        observed.write_bytes(model.SerializeToString())
        del model
        return onnxruntime.InferenceSession(observed, providers=["CPUExecutionProvider"]), names
    finally:
        observed.unlink()


def trying_batches(texts: Sequence[Sequence[int]], vocabulary: int, longest: int) -> Iterator[Batch]:
    """Texts as they are, then what no text has: every so-many-th token of the vocabulary, and one token over and over.

    texts: token ids with the special ones at both ends. Rare tokens and repetitions give the largest activations, and
    what was not seen here is cut off in service: so the whole range is kept.
    """
    for text in texts:
        yield np.array([text], np.int64)
    start, end = texts[0][0], texts[0][-1]
    length = max(1, min(longest, _WALK_TOKENS) - 2)
    step = max(1, vocabulary // _WALKED)
    every = np.arange(0, vocabulary, step, dtype=np.int64)
    walked: Batch = every[: len(every) - len(every) % length].reshape(-1, length)
    for rows in np.array_split(walked, max(1, len(walked) // _ROWS)) if len(walked) else ():
        yield _framed(rows, start, end)
    repeated = np.arange(0, vocabulary, max(1, vocabulary // _REPEATED), dtype=np.int64)
    for count in (1, length, max(1, min(longest, _LONGEST) - 2)):
        pieces = len(repeated) * (count + 2) // (_ROWS * _WALK_TOKENS)
        for rows in np.array_split(repeated, min(len(repeated), max(1, pieces))):
            yield _framed(np.repeat(rows[:, None], count, axis=1), start, end)


_WALKED = 8_192  # tokens of the vocabulary
_WALK_TOKENS = 64
_LONGEST = 512  # tokens of one text here: the values of all layers are held at once
_ROWS = 4
_REPEATED = 8


def _framed(rows: Batch, start: int, end: int) -> Batch:
    edge = np.ones((len(rows), 1), np.int64)
    return np.concatenate([start * edge, rows, end * edge], axis=1)


def _empty(channels: int) -> Range:
    return Range(np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32))
