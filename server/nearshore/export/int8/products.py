"""Products of activations and weights in 8 bits, with scales that are fixed at export.

Activations are unsigned, with one scale and zero point each; weights signed, with one scale a column. What a row gives
depends on that row alone, so texts that share a run stay strangers. Large channels are dealt with before rounding:
after a normalization they are divided by what the weights are multiplied with (Xiao et al., "SmoothQuant", 2023); of a
feed-forward's activations the largest are left out and multiplied in float32 beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nearshore.export.graph.builder import ONNX_RUNTIME, GraphBuilder
from nearshore.export.int8.ranges import Range
from nearshore.export.int8.recipe import Recipe
from nearshore.records import F32

_CONTEXT = ".context"  # what attention gives
_ACTIVE = (".active", ".gated")  # what a feed-forward's activation gives
_LARGEST_WEIGHT, _LARGEST_ACTIVATION = 127, 255


@dataclass(frozen=True, slots=True)
class _Rounded:
    """An activation in 8 bits, as names in the graph."""

    values: str
    scale: str
    zero: str


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

    def multiply(
        self, graph: GraphBuilder, activation: str, weight: F32, bias: F32 | None, outputs: Sequence[str]
    ) -> None:
        """See Integers."""
        weight = np.array(weight, np.float32)
        left_out = self._left_out(activation)
        beside = weight[left_out]
        weight[left_out] = 0
        rounded, weight = self._round(graph, activation, weight)
        few = _few(graph, activation, left_out) if len(left_out) else ""
        biases = [None] * len(outputs) if bias is None else np.split(bias, len(outputs))
        weights = (np.split(each, len(outputs), axis=1) for each in (weight, beside))
        for output, whole_weight, beside_weight, part_bias in zip(outputs, *weights, biases, strict=True):
            if not few:
                _multiply(graph, rounded, whole_weight, part_bias, output)
                continue
            whole = _multiply(graph, rounded, whole_weight, part_bias, f"{output}.in_integers")
            constant = graph.constant(f"{output}.beside.weight", beside_weight)
            graph.add("Add", [whole, graph.add("MatMul", [few, constant], f"{output}.beside")], output)

    def _round(self, graph: GraphBuilder, activation: str, weight: F32) -> tuple[_Rounded, F32]:
        """The activation in 8 bits, and the weight for it."""
        seen = self._ranges[activation]
        used = np.abs(weight).max(axis=1) > 0  # the others give nothing, however much of them is cut off
        low, high = seen.low, seen.high
        prepared = activation
        if not activation.endswith((_CONTEXT, *_ACTIVE)):
            factor = _smoothing(seen, weight, self._recipe.alpha)
            weight = weight / factor[:, None]
            low, high = low * factor, high * factor
            constant = graph.constant(f"{activation}.factor", factor)
            prepared = graph.add("Mul", [activation, constant], f"{activation}.smooth")
        bounds = float(low[used].min(initial=0)), float(high[used].max(initial=0))
        return _round(graph, prepared, bounds), weight

    def _left_out(self, activation: str) -> npt.NDArray[np.int64]:
        seen = self._ranges[activation]
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


def _round(graph: GraphBuilder, prepared: str, bounds: tuple[float, float]) -> _Rounded:
    low, high = bounds
    scale = np.float32((high - low) / _LARGEST_ACTIVATION or 1.0)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, _LARGEST_ACTIVATION))
    scale_name = graph.constant(f"{prepared}.scale", np.array(scale))
    zero_name = graph.constant(f"{prepared}.zero", np.array(zero))
    values = graph.add("QuantizeLinear", [prepared, scale_name, zero_name], f"{prepared}.u8")
    return _Rounded(values, scale_name, zero_name)


def _multiply(graph: GraphBuilder, rounded: _Rounded, weight: F32, bias: F32 | None, output: str) -> str:
    scales = np.abs(weight).max(axis=0) / np.float32(_LARGEST_WEIGHT)
    scales[scales == 0] = 1.0
    integers = np.rint(weight / scales).astype(np.int8)
    weights = [graph.constant(f"{output}.weight", integers), graph.constant(f"{output}.scales", scales)]
    inputs = [rounded.values, weights[0], rounded.scale, weights[1], rounded.zero]
    if bias is not None:
        inputs += ["", graph.constant(f"{output}.bias", bias)]  # between them: the weights' zero point, which is 0
    return graph.add("MatMulIntegerToFloat", inputs, output, domain=ONNX_RUNTIME)


def _few(graph: GraphBuilder, activation: str, channels: npt.NDArray[np.int64]) -> str:
    largest = graph.constant(f"{activation}.largest", channels)
    return graph.add("Gather", [activation, largest], f"{activation}.few", axis=-1)
