"""Multi-head self-attention (Vaswani et al., 2017), with positions absolute, relative or rotary, global or local.

Where positions are in the embeddings, or in a bias of the scores, ONNX Runtime's Attention does it all, projections of
queries, keys and values included. Rotary positions come between projection and scores, and a projection in integers is
a product of its own: there the steps are apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nearshore.export.graph.builder import ONNX_RUNTIME, GraphBuilder
from nearshore.network import Network
from nearshore.records import F32

_HIDDEN = np.float32(-10_000)  # added to the scores of what may not be seen: as ONNX Runtime does for padding
_BUCKETS, _FARTHEST = 32, 128  # of relative positions


@dataclass(frozen=True, slots=True)
class Shared:
    """What all layers share, as names in the graph."""

    mask: str  # (B, S) int32: 1 real, 0 padding; empty: there is none
    relative: str = ""  # (1, heads, S, S), added to scores
    local: str = ""  # (1, 1, S, S), added to the scores of layers that attend locally
    rotations: tuple[str, str] = ("", "")  # cosines and sines (positions, half a head)
    local_rotations: tuple[str, str] = ("", "")


def share(graph: GraphBuilder, *, ids: str, mask: str) -> Shared:
    """Compute, once for all layers, what depends on the length of texts only. mask: as Shared has it."""
    network = graph.network
    relative = local = ""
    if graph.family.relative_positions:
        relative = _relative_bias(graph, _distances(graph, ids))
    if network.local_layers:
        local = _local_bias(graph, _distances(graph, ids))
    rotations = local_rotations = ("", "")
    if network.rotary_base is not None:
        rotations = _rotations(graph, network.rotary_base, "rotary")
        local_rotations = rotations
        if network.local_layers and network.local_rotary_base is not None:
            local_rotations = _rotations(graph, network.local_rotary_base, "rotary.local")
    return Shared(mask, relative, local, rotations, local_rotations)


def attend(graph: GraphBuilder, layer: int, hidden: str, shared: Shared) -> str:
    """One layer's attention, before its output projection: (B, S, H) to the same."""
    family, network = graph.family, graph.network
    group = group_of(network, layer)
    modules = [name.format(group) for name in family.qkv]
    linear = graph.joined(f"layer.{group}.qkv", modules, biased=family.biased)  # layers of one group share it
    name = f"layer.{layer}.attention"
    if network.rotary_base is None and not graph.in_integers(hidden):
        bias = graph.constant(linear.bias_name, linear.bias) if linear.bias else ""
        weight = graph.constant(linear.weight_name, linear.weight)
        inputs = _without_end([hidden, weight, bias, shared.mask, "", shared.relative])
        return graph.add("Attention", inputs, f"{name}.context", domain=ONNX_RUNTIME, num_heads=network.heads)
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    graph.multiply_apart(hidden, linear, f"{name}.projection", parts)
    return _attend_apart(graph, layer, parts, shared)


def _attend_apart(graph: GraphBuilder, layer: int, parts: list[str], shared: Shared) -> str:
    """Attention of queries, keys and values, each (B, S, H), to the same."""
    name = f"layer.{layer}.attention"
    bias = shared.relative
    if graph.network.rotary_base is not None:
        local = layer in graph.network.local_layers
        rotations = shared.local_rotations if local else shared.rotations
        first = graph.integers("zero", 0)
        parts[:2] = [
            graph.add("RotaryEmbedding", [part, first, *rotations], f"{part}.rotated", domain=ONNX_RUNTIME)
            for part in parts[:2]
        ]
        bias = shared.local if local else ""
    inputs = _without_end([*parts, "", shared.mask, bias])
    heads = graph.network.heads
    return graph.add("MultiHeadAttention", inputs, f"{name}.context", domain=ONNX_RUNTIME, num_heads=heads)


def _without_end(inputs: list[str]) -> list[str]:
    """Inputs of a node up to the last that is there."""
    return inputs[: max(place for place, name in enumerate(inputs) if name) + 1]


def group_of(network: Network, layer: int) -> int:
    """Whose tensors a layer uses (Lan et al., "ALBERT", 2020); its own, where there are no groups."""
    if network.groups is None:
        return layer
    return int(layer / (network.layers / network.groups))  # with the rounding that its authors' code has


def _distances(graph: GraphBuilder, ids: str) -> str:
    """How far each token (column) is from each (row): (S, S) int64, negative to the left."""
    start, step = (graph.constant(f"range.{name}", np.array(n, np.int64)) for n, name in enumerate(("start", "step")))
    length = graph.add("Shape", [ids], "range.length", start=1, end=2)
    numbers = graph.add("Range", [start, graph.add("Squeeze", [length], "range.end"), step], "range")
    rows = graph.add("Unsqueeze", [numbers, graph.integers("one", 1)], "range.rows")
    return graph.add("Sub", [numbers, rows], "distances")


def _relative_bias(graph: GraphBuilder, distances: str) -> str:
    """MPNet's bias of scores by distance in tokens (as in Raffel et al., "T5", 2020): (1, heads, S, S)."""
    farthest = graph.network.longest_text - 1

    def table() -> F32:
        buckets = relative_buckets(np.arange(-farthest, farthest + 1))
        return np.ascontiguousarray(graph.read(f"{graph.family.relative_positions}.weight")[buckets].T)

    by_distance = graph.constant("relative.by_distance", table)  # (heads, 2 * farthest + 1)
    index = graph.add("Add", [distances, graph.integers("relative.farthest", farthest)], "relative.index")
    bias = graph.add("Gather", [by_distance, index], "relative.heads", axis=1)
    return graph.add("Unsqueeze", [bias, graph.integers("zero", 0)], "relative")


def relative_buckets(distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bucket of each distance: near ones have their own, far ones share in powers; the right half looks right."""
    half = _BUCKETS // 2
    exact = half // 2
    away = np.abs(distances)
    # In float32, step by step, as the model was trained with it.
    powers = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(_FARTHEST / exact))
    far = np.minimum(exact + (powers * np.float32(half - exact)).astype(np.int64), half - 1)
    return np.where(distances > 0, half, 0) + np.where(away < exact, away, far)


def _local_bias(graph: GraphBuilder, distances: str) -> str:
    """0 within reach, or else as for padding: (1, 1, S, S)."""
    away = graph.add("Abs", [distances], "local.away")
    near = graph.add("LessOrEqual", [away, graph.integers("local.reach", graph.network.local_reach or 0)], "local.near")
    nothing, hidden = graph.constant("nothing", np.zeros(1, np.float32)), graph.constant("hidden", np.array([_HIDDEN]))
    bias = graph.add("Where", [near, nothing, hidden], "local.bias")
    return graph.add("Unsqueeze", [bias, graph.integers("zero_and_one", 0, 1)], "local")


def _rotations(graph: GraphBuilder, base: float, name: str) -> tuple[str, str]:
    """Cosines and sines of every position (Su et al., "RoFormer", 2021): two constants (positions, half a head)."""
    network = graph.network
    size = network.hidden_size // network.heads
    # In float32 up to the angle, as the model was trained with it.
    frequencies = np.float32(1) / np.float32(base) ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    angles = np.outer(np.arange(network.positions, dtype=np.float32), frequencies.astype(np.float32))
    cosines = graph.constant(f"{name}.cosines", np.cos(angles).astype(np.float32))
    return cosines, graph.constant(f"{name}.sines", np.sin(angles).astype(np.float32))
