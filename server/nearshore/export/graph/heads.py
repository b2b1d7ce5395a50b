"""What is computed from the last layer's vectors."""

from __future__ import annotations

import numpy as np

from nearshore.export.family import Classifier, LanguageHead
from nearshore.export.graph.builder import ONNX_RUNTIME, GraphBuilder


def pool(graph: GraphBuilder, hidden: str, output: str) -> str:
    """BERT's pooler: the first token through a dense layer and tanh: (B, S, H) to (B, H)."""
    dense = graph.dense(str(graph.family.pooler), _first(graph, hidden, "pooler.first"), "pooler.dense")
    return graph.activate("tanh", dense, output)


def score_vocabulary(graph: GraphBuilder, head: LanguageHead, hidden: str, *, tied: bool, output: str) -> str:
    """Every token's scores of the whole vocabulary (masked language modelling): (B, S, H) to (B, S, V).

    tied: the decoder is the table of words.
    """
    biased = graph.family.biased if head.biased is None else head.biased
    dense = graph.dense(head.dense, hidden, "mlm.dense", biased=biased)
    active = graph.activate(head.activation or graph.network.activation, dense, "mlm.active")
    normal = graph.layer_norm(head.norm, active, "mlm.norm")
    words = graph.tensor(f"{graph.family.words if tied else head.decoder}.weight")
    # Turned by the operator, so that the table is not held twice.
    product = output if head.bias is None else "mlm.product"
    graph.add("FusedMatMul", [normal, words], product, domain=ONNX_RUNTIME, transB=1)
    return product if head.bias is None else graph.add("Add", [product, graph.tensor(head.bias)], output)


def classify(graph: GraphBuilder, head: Classifier, hidden: str, *, pooled: str, mask: str, output: str) -> str:
    """Every text's scores of the classes: (B, S, H) to (B, classes).

    pooled: the pooler's output, if the head starts from it; mask: (B, S), 1 real, 0 padding, of any integer type.
    """
    match head.source:
        case "pooled":
            vectors = pooled
        case "first":
            vectors = _first(graph, hidden, "classifier.first")
        case "mean":
            vectors = _mean(graph, hidden, mask)
    if head.dense is not None:
        vectors = graph.dense(head.dense, vectors, "classifier.dense", biased=graph.family.biased)
        vectors = graph.activate(head.activation, vectors, "classifier.active")
    if head.norm is not None:
        vectors = graph.layer_norm(head.norm, vectors, "classifier.norm")
    return graph.dense(head.output, vectors, output)


def _first(graph: GraphBuilder, hidden: str, output: str) -> str:
    """The first token's vectors: (B, S, H) to (B, H)."""
    return graph.add("Gather", [hidden, graph.constant("first", np.array(0, np.int64))], output, axis=1)


def _mean(graph: GraphBuilder, hidden: str, mask: str) -> str:
    """The mean of the vectors of real tokens: (B, S, H) to (B, H)."""
    real = graph.add("Cast", [mask], "classifier.mask", to=1)  # FLOAT
    tokens = graph.integers("tokens", 1)
    # A product, since ReduceSum adds the tokens of one text in another order than those of several.
    row = graph.add("Unsqueeze", [real, tokens], "classifier.mask.row")
    product = graph.add("MatMul", [row, hidden], "classifier.total.row")
    total = graph.add("Squeeze", [product, tokens], "classifier.total")
    count = graph.add("ReduceSum", [real, tokens], "classifier.count", keepdims=1)
    one = graph.constant("classifier.least", np.ones(1, np.float32))  # where a text has no real token
    count = graph.add("Max", [count, one], "classifier.tokens")
    return graph.add("Div", [total, count], "classifier.mean")
