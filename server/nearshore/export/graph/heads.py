"""What is computed from the last layer's vectors."""

from __future__ import annotations

import numpy as np

from nearshore.export.graph.builder import GraphBuilder


def pooled(graph: GraphBuilder, hidden: str, output: str) -> str:
    """BERT's pooler: the first token through a dense layer and tanh: (B, S, H) to (B, H)."""
    first = first_token(graph, hidden)
    return graph.activate("tanh", graph.dense(str(graph.family.pooler), first, "pooler.dense"), output)


def first_token(graph: GraphBuilder, hidden: str) -> str:
    """(B, S, H) to (B, H)."""
    return graph.add("Gather", [hidden, graph.constant("first", np.array(0, np.int64))], f"{hidden}.first", axis=1)
