"""A session feeds a graph what it takes, or refuses it when it is loaded."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from nearshore.bundle import Bundle, CorruptBundleError
from nearshore.embedding.session import Session
from tests.tiny_bert import make_bundle

TEXTS = [[2, 20, 21, 3], [2, 30, 31, 3]]


def change_input(bundle: Bundle, number: int, *, name: str, integer: int) -> None:
    """Give an input of the graph another name and type."""
    graph = onnx.load(bundle.model_path)
    old = graph.graph.input[number].name
    graph.graph.input[number].name = name
    graph.graph.input[number].type.tensor_type.elem_type = integer
    cast = onnx.helper.make_node("Cast", [name], [f"{name}.cast"], to=onnx.TensorProto.INT64)
    for node in graph.graph.node:
        node.input[:] = [f"{name}.cast" if each == old else each for each in node.input]
    graph.graph.node.insert(0, cast)
    onnx.save(graph, bundle.model_path)


def test_inputs_of_either_width_are_fed(tmp_path: Path) -> None:
    """An adopted graph may take ids of 64 bits and a mask of 32."""
    bundle = make_bundle(tmp_path)
    expected = Session(bundle).run(TEXTS)
    change_input(bundle, 1, name="attention_mask", integer=onnx.TensorProto.INT32)
    assert (Session(bundle).run(TEXTS) == expected).all()


@pytest.mark.parametrize(
    ("name", "integer"), [("position_ids", onnx.TensorProto.INT64), ("token_type_ids", onnx.TensorProto.FLOAT)]
)
def test_an_input_that_nobody_knows_is_refused(tmp_path: Path, name: str, integer: int) -> None:
    """A later version's bundle may take more; zeros for it would be wrong in silence."""
    bundle = make_bundle(tmp_path)
    change_input(bundle, 2, name=name, integer=integer)
    with pytest.raises(CorruptBundleError, match=rf"its graph takes .*{name} tensor"):
        Session(bundle)
