"""From token numbers to vectors: tables that are added and normalized."""

from __future__ import annotations

import numpy as np

from nearshore.export.graph.builder import GraphBuilder
from nearshore.export.layout import has_projection


def embed(graph: GraphBuilder, *, ids: str, types: str) -> str:
    """Sum of the tables, normalized and, where they are narrower than the layers, projected: (B, S) to (B, S, H).

    ids, types: names of the graph's inputs; where there is one token type, or none, types is not an input.
    """
    family, network = graph.family, graph.network
    total = graph.add("Gather", [graph.tensor(f"{family.words}.weight"), ids], "embeddings.words")
    if family.types and network.token_types:
        total = graph.add("Add", [total, _types(graph, types)], "embeddings.words_and_types")
    if family.positions:
        positions = _positions(graph, ids)
        total = graph.add("Add", [total, positions], "embeddings.sum")
    normal = graph.layer_norm(family.embeddings_norm, total, "embeddings")
    if has_projection(family, network):
        return graph.dense(str(family.projection), normal, "embeddings.projected")
    return normal


def _types(graph: GraphBuilder, types: str) -> str:
    """(B, S, H), or one row for every token where there is one type."""
    table = graph.tensor(f"{graph.family.types}.weight")
    return table if graph.network.token_types == 1 else graph.add("Gather", [table, types], "embeddings.types")


def _positions(graph: GraphBuilder, ids: str) -> str:
    """The vectors of 0, 1, 2, ...: (S, H). Where padding has a position of its own (RoBERTa): (B, S, H).

    There the first token has the position after the padding's, and tokens are counted that are not padding, whatever
    the mask says.
    """
    table = graph.tensor(f"{graph.family.positions}.weight")
    if graph.network.padding_id is None:
        zero = graph.integers("zero", 0)
        length = graph.add("Shape", [ids], "sequence_length", start=1, end=2)
        return graph.add("Slice", [table, zero, length, zero], "embeddings.positions")
    padding = graph.integers("padding", graph.network.padding_id)
    same = graph.add("Equal", [ids, padding], "positions.is_padding")
    real = graph.add("Cast", [graph.add("Not", [same], "positions.is_real")], "positions.real", to=7)  # INT64
    one = graph.constant("axis", np.array(1, np.int64))
    counted = graph.add("Mul", [graph.add("CumSum", [real, one], "positions.count"), real], "positions.counted")
    numbers = graph.add("Add", [counted, padding], "positions")
    return graph.add("Gather", [table, numbers], "embeddings.positions")
