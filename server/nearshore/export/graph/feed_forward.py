"""The two-layer perceptron of a transformer layer, plain or gated."""

from __future__ import annotations

from nearshore.export.graph.attention import group_of
from nearshore.export.graph.builder import GraphBuilder


def feed_forward(graph: GraphBuilder, layer: int, hidden: str) -> str:
    """Dense to I, activation, dense to H: (B, S, H) to the same. Where gated: dense to 2 I, act(half) * other half."""
    family, network = graph.family, graph.network
    group = group_of(network, layer)
    name = f"layer.{layer}.feed_forward"
    if family.gated:
        modules = [module.format(group) for module in family.wide]
        linear = graph.joined(f"layer.{group}.wide", modules, biased=False)
        parts = [f"{name}.activated", f"{name}.gate"]
        graph.multiply_apart(hidden, linear, f"{name}.wide", parts)
        active = graph.activate(network.activation, parts[0], f"{name}.active")
        active = graph.add("Mul", [active, parts[1]], f"{name}.gated")
    else:
        (module,) = family.wide
        wide = graph.dense(module.format(group), hidden, f"{name}.wide", biased=family.biased)
        active = graph.activate(network.activation, wide, f"{name}.active")
    return graph.dense(family.narrow.format(group), active, f"{name}.narrow", biased=family.biased)
