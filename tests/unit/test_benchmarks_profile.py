"""The profile of a network counts each of its nodes, and estimates from them what could be saved."""

from pathlib import Path

import pytest

from benchmarks.embedding_profile import Node, estimate, profile, shares
from nearshore.bundle import Precision
from tests.tiny_bert import make_bundle


def test_every_node_of_every_run_is_counted_once(tmp_path: Path) -> None:
    """However often a run is repeated, and however many texts it has; shares are of all of them."""
    bundle = make_bundle(tmp_path, int8=True).at(Precision.INT8)
    nodes = profile(bundle, [[[1, 2, 3]], [[4, 5], [6, 7]]])
    products = [node for node in nodes if node.operator == "MatMulIntegerToFloat"]
    network = bundle.manifest.network
    assert len(products) == 2 * network.layers * 6  # query, key, value, output, and two of the feed-forward
    assert {node.width for node in products} == {network.hidden_size, network.intermediate_size}
    found = shares(nodes)
    assert {"integer products", "attention", "Gelu", "QuantizeLinear", "LayerNormalization"} <= set(found)
    assert sum(found.values()) == pytest.approx(1)


def test_what_would_be_saved_follows_from_the_nodes(tmp_path: Path) -> None:
    """Roundings after normalizations and Gelu, smoothing, and three copies a layer at two thirds of an addition."""
    network = make_bundle(tmp_path).manifest.network
    narrow, wide = network.hidden_size, network.intermediate_size
    nodes = [
        *[Node("QuantizeLinear", narrow, 10)] * 3,
        Node("QuantizeLinear", wide, 40),
        *[Node("Mul", narrow, 15)] * 2,
        *[Node("Add", narrow, 6)] * 2,
        Node("MatMulIntegerToFloat", narrow, 888),
    ]
    found = estimate(nodes, network, 1)
    assert found.rounding_fused == pytest.approx((20 + 40 + 30) / 1000)
    assert found.attention_without_copies == pytest.approx(network.layers * 3 * 4 / 1000)
    assert found.times_as_fast == pytest.approx(1 / (1 - 0.09 - 0.012 * network.layers))
