"""Products of activations and weights in 8 bits, with scales that are fixed at export.

Activations are unsigned, with one scale and zero point each; weights signed, with one scale a column. What a row gives
depends on that row alone, so texts that share a run stay strangers. Large channels are dealt with before rounding:
after a normalization they are divided by what the weights are multiplied with (Xiao et al., "SmoothQuant", 2023); of a
feed-forward's activations the largest are left out and multiplied in float32 beside.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from nearshore.export.graph.builder import ONNX_RUNTIME, GraphBuilder
from nearshore.export.int8.ranges import Range
from nearshore.export.int8.recipe import Recipe
from nearshore.records import F32

_CONTEXT = ".context"  # what attention gives
_ACTIVE = (".active", ".gated")  # what a feed-forward's activation gives
_LARGEST_WEIGHT, _LARGEST_ACTIVATION = 127, 255


class IntegerProducts:
    """Implements builder.Integers for one network."""

    def __init__(self, ranges: Mapping[str, Range], recipe: Recipe, layers: int) -> None:
        """ranges: of every activation whose product is to be in integers, unless the recipe leaves it."""
        self._ranges = ranges
        self._recipe = recipe
        exact = range(layers - recipe.exact_layers, layers)
        self._exact = {f"layer.{layer}.feed_forward{suffix}" for layer in exact for suffix in _ACTIVE}

    def takes(self, activation: str) -> bool:
        """See Integers."""
        return activation in self._ranges and activation not in self._exact

    def multiply(self, graph: GraphBuilder, activation: str, weight: F32, bias: F32 | None, output: str) -> str:
        """See Integers."""
        seen = self._ranges[activation]
        weight = np.array(weight, np.float32)
        left_out = self._left_out(activation, seen)
        beside = weight[left_out]
        weight[left_out] = 0
        used = np.abs(weight).max(axis=1) > 0  # the others give nothing, however much of them is cut off
        low, high = seen.low, seen.high
        prepared = activation
        if not activation.endswith((_CONTEXT, *_ACTIVE)):
            factor = _smoothing(seen, weight, self._recipe.alpha)
            weight /= factor[:, None]
            low, high = low * factor, high * factor
            prepared = graph.add(
                "Mul", [activation, graph.constant(f"{activation}.factor", factor)], f"{activation}.smooth"
            )
        whole = output if not len(left_out) else f"{output}.in_integers"
        bounds = float(low[used].min(initial=0)), float(high[used].max(initial=0))
        _multiply(graph, prepared, bounds, weight, bias, whole)
        if len(left_out):
            _add_beside(graph, activation, left_out, beside, whole, output)
        return output

    def _left_out(self, activation: str, seen: Range) -> npt.NDArray[np.int64]:
        if not activation.endswith(_ACTIVE) or not self._recipe.outliers:
            return np.empty(0, np.int64)
        most = len(seen.low) - 1  # something must be left to round
        largest = np.argsort(-_sizes(seen), kind="stable")[: min(self._recipe.outliers, most)]
        return np.sort(largest).astype(np.int64)


def _sizes(seen: Range) -> F32:
    return np.maximum(np.abs(seen.low), np.abs(seen.high))


def _smoothing(seen: Range, weight: F32, alpha: float) -> F32:
    """By what each channel is multiplied: the inverse of SmoothQuant's s. weight: (channels, out)."""
    sizes, weights = _sizes(seen), np.abs(weight).max(axis=1)
    used = (sizes > 0) & (weights > 0)  # the others give nothing, whatever they are multiplied by
    factor = np.ones_like(sizes)
    factor[used] = weights[used] ** (1 - alpha) / sizes[used] ** alpha
    return factor


def _multiply(
    graph: GraphBuilder, prepared: str, bounds: tuple[float, float], weight: F32, bias: F32 | None, output: str
) -> None:
    low, high = bounds
    scale = np.float32((high - low) / _LARGEST_ACTIVATION or 1.0)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, _LARGEST_ACTIVATION))
    scales = np.abs(weight).max(axis=0) / np.float32(_LARGEST_WEIGHT)
    scales[scales == 0] = 1.0
    integers = np.rint(weight / scales).astype(np.int8)
    place = [
        graph.constant(f"{prepared}.scale", np.array(scale)),
        graph.constant(f"{prepared}.zero", np.array(zero)),
    ]
    rounded = graph.add("QuantizeLinear", [prepared, *place], f"{prepared}.u8")
    weights = [graph.constant(f"{output}.weight", integers), graph.constant(f"{output}.scales", scales)]
    inputs = [rounded, weights[0], place[0], weights[1], place[1]]
    if bias is not None:
        inputs += ["", graph.constant(f"{output}.bias", bias)]  # between them: the weights' zero point, which is 0
    graph.add("MatMulIntegerToFloat", inputs, output, domain=ONNX_RUNTIME)


def _add_beside(
    graph: GraphBuilder, activation: str, channels: npt.NDArray[np.int64], weight: F32, whole: str, output: str
) -> None:
    few = graph.add(
        "Gather", [activation, graph.constant(f"{activation}.largest", channels)], f"{activation}.few", axis=-1
    )
    beside = graph.add("MatMul", [few, graph.constant(f"{output}.beside.weight", weight)], f"{output}.beside")
    graph.add("Add", [whole, beside], output)
