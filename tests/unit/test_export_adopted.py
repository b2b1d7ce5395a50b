"""Another's ONNX model is taken when it does what a bundle promises, and refused with what it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nearshore.bundle import Bundle
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from tests.tiny_bert import embed_golden, make_checkpoint
from tests.tiny_encoders import edit_config

Change = Callable[[Any], None]


@pytest.fixture
def exported(tmp_path: Path) -> Bundle:
    """What nearshore makes of the weights."""
    return export(make_checkpoint(tmp_path / "weights"))


def export(folder: Path, options: ExportOptions | None = None) -> Bundle:
    destination = folder.parent / f"{folder.name}-bundle"
    return export_bundle(folder, destination, name="tiny", embed_golden=embed_golden, options=options)


def theirs(exported: Bundle, folder: Path, change: Change = lambda model: None) -> Path:
    """A folder with the same network as others would have exported it, and no weights."""
    make_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    model = onnx.load(exported.model_path)
    rename(model, "sequence_output", "last_hidden_state")
    change(model)
    (folder / "onnx").mkdir()
    onnx.save(model, folder / "onnx" / "model.onnx")
    return folder


def rename(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
        node.input[:] = [new if name == old else name for name in node.input]
    for value in (*model.graph.output, *model.graph.input):
        value.name = new if value.name == old else value.name


def test_gives_the_same_vectors_under_the_names_of_bundles(exported: Bundle, tmp_path: Path) -> None:
    """Outputs of other names and further ones are renamed and dropped; its digest is the file's, not the weights'."""

    def add_output(model: Any) -> None:
        hidden = model.graph.node[-1].input[0]
        model.graph.output.append(helper.make_tensor_value_info(hidden, TensorProto.FLOAT, ["batch", "sequence", 32]))

    bundle = export(theirs(exported, tmp_path / "onnx-only", add_output))
    assert bundle.manifest.outputs == ("sequence_output",)
    assert bundle.manifest.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert (bundle.golden().vectors == exported.golden().vectors).all()
    assert bundle.manifest.fingerprint != exported.manifest.fingerprint


def test_a_model_without_token_types_is_fed_without_them(exported: Bundle, tmp_path: Path) -> None:
    """An exporter may have left out what a single text does not need."""

    def fix_types(model: Any) -> None:
        zeros = helper.make_node("Sub", ["input_ids", "input_ids"], ["token_type_ids"])
        model.graph.node.insert(0, zeros)
        del model.graph.input[2]

    bundle = export(theirs(exported, tmp_path / "onnx-only", fix_types))
    assert bundle.manifest.inputs == ("input_ids", "attention_mask")
    assert (bundle.golden().vectors == exported.golden().vectors).all()


def test_weights_come_first(exported: Bundle, tmp_path: Path) -> None:
    """Where a folder holds both, the weights are exported."""
    folder = theirs(exported, tmp_path / "both")
    (folder / "model.safetensors").write_bytes((tmp_path / "weights" / "model.safetensors").read_bytes())
    assert export(folder).manifest.fingerprint == exported.manifest.fingerprint


def test_constants_that_lose_nothing_are_taken(exported: Bundle, tmp_path: Path) -> None:
    """Exporters leave numbers of 64 bits and truth values in a graph, which are no quantized weights."""

    def add_constants(model: Any) -> None:
        constants = [np.float64(0.5), np.int32(1), np.array(True)]
        tensors = [numpy_helper.from_array(np.asarray(value), f"constant{n}") for n, value in enumerate(constants)]
        model.graph.initializer.extend(tensors)
        model.graph.node.append(helper.make_node("Cast", ["constant0"], ["unused"], to=TensorProto.FLOAT))

    bundle = export(theirs(exported, tmp_path / "onnx-only", add_constants))
    assert (bundle.golden().vectors == exported.golden().vectors).all()


def axes(*sizes: int | str) -> Change:
    """The first input with these axes."""

    def apply(model: Any) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input_ids", TensorProto.INT64, sizes))

    return apply


def ignore_mask(model: Any) -> None:
    """Attention without its mask."""
    for node in model.graph.node:
        if node.op_type == "Attention":
            del node.input[3:]


def put_weights_aside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "model.onnx_data"


def put_a_constant_aside(model: Any) -> None:
    """Weights elsewhere that a node names, not the graph."""
    constant = numpy_helper.from_array(np.zeros(2, np.float32))
    constant.ClearField("raw_data")
    constant.data_location = TensorProto.EXTERNAL
    entry = constant.external_data.add()
    entry.key, entry.value = "location", "../../secret"
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=constant))


def halve(model: Any) -> None:
    """A network of 16 bits between casts."""
    constant = numpy_helper.from_array(np.zeros(2, np.float16), "half")
    model.graph.initializer.append(constant)
    model.graph.node.append(helper.make_node("Cast", ["half"], ["unused"], to=TensorProto.FLOAT))


def quantize(model: Any) -> None:
    """A constant that is stored in 8 bits."""
    constants = [("q", np.zeros(2, np.uint8)), ("s", np.float32(1)), ("z", np.uint8(0))]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants)
    model.graph.node.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["unused"]))


def hide_weights(model: Any) -> None:
    """8 bits that no operator is known to ask for."""
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.uint8), "packed"))
    model.graph.node.append(helper.make_node("Cast", ["packed"], ["unused"], to=TensorProto.FLOAT))


def quantize_a_branch(model: Any) -> None:
    """A graph inside a node."""
    constants = [("q", np.zeros(2, np.uint8)), ("s", np.float32(1)), ("z", np.uint8(0))]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    output = helper.make_tensor_value_info("unpacked", TensorProto.FLOAT, [2])
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["unpacked"])
    branch = helper.make_graph([node], "branch", [], [output], weights)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["unused"], then_branch=branch, else_branch=branch))


def hide_weights_in_a_function(model: Any) -> None:
    """An operator that the model defines itself."""
    packed = numpy_helper.from_array(np.zeros(2, np.int8))
    nodes = [helper.make_node("Constant", [], ["q"], value=packed)]
    nodes.append(helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT))
    model.functions.append(helper.make_function("local", "Weights", [], ["y"], nodes, list(model.opset_import)))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node("Weights", [], ["unused"], domain="local"))


def break_axes(model: Any) -> None:
    """A reshape that was traced with one length of text."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 7, 32]), "traced"))
    model.graph.node.append(helper.make_node("Reshape", ["last_hidden_state", "traced"], ["sequence_output"]))
    model.graph.output[0].name = "sequence_output"


REFUSED: dict[str, tuple[Change, str]] = {
    "fixed axes": (axes(1, 128), r"onnx/model\.onnx takes input_ids of fixed axes \(1, 128\), they must be open"),
    "one fixed axis": (axes("batch", 128), r"fixed axes \('batch', 128\)"),
    "another input": (lambda model: rename(model, "token_type_ids", "position_ids"), "takes input_ids, .*position_ids"),
    "no vectors of tokens": (lambda model: rename(model, "last_hidden_state", "pooler_output"), "gives pooler_output"),
    "a mask that is not heeded": (ignore_mask, "does not heed the mask"),
    "weights elsewhere": (put_weights_aside, "has its weights in another file"),
    "a constant elsewhere": (put_a_constant_aside, "has its weights in another file"),
    "16 bits": (halve, "has weights of 16 bits"),
    "8 bits": (quantize, r"is quantized \(DequantizeLinear\)"),
    "8 bits without a name": (hide_weights, "has constants of type UINT8, as quantized weights have"),
    "8 bits in a branch": (quantize_a_branch, r"is quantized \(DequantizeLinear\)"),
    "8 bits in a function": (hide_weights_in_a_function, "has constants of type INT8"),
    "a length inside the graph": (break_axes, "cannot be run"),
    "no valid graph": (lambda model: model.graph.node.pop(), "is no valid model|cannot be run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_breaks_the_promises_of_a_bundle(exported: Bundle, tmp_path: Path, case: str) -> None:
    """The error names the file and what is wrong with it, and no bundle appears."""
    change, complaint = REFUSED[case]
    refuse(theirs(exported, tmp_path / "theirs", change), complaint)


def test_refuses_a_network_of_another_width(exported: Bundle, tmp_path: Path) -> None:
    """config.json and the model must be of one network."""
    folder = theirs(exported, tmp_path / "theirs")
    edit_config(folder, hidden_size=64)
    refuse(folder, "not finite float32|cannot be run")


def test_refuses_what_is_no_onnx(exported: Bundle, tmp_path: Path) -> None:
    folder = theirs(exported, tmp_path / "theirs")
    (folder / "onnx" / "model.onnx").write_bytes(b"\xff" * 99)
    refuse(folder, r"onnx/model\.onnx cannot be read")


def test_refuses_a_classifier_without_scores(exported: Bundle, tmp_path: Path) -> None:
    folder = theirs(exported, tmp_path / "theirs")
    edit_config(folder, architectures=["BertForSequenceClassification"])
    refuse(folder, "gives no logits")


def test_refuses_to_add_outputs(exported: Bundle, tmp_path: Path) -> None:
    refuse(theirs(exported, tmp_path / "theirs"), "cannot be given to another's", ExportOptions(all_layers=True))


def refuse(folder: Path, complaint: str, options: ExportOptions | None = None) -> None:
    with pytest.raises(UnusableCheckpointError, match=complaint) as caught:
        export(folder, options)
    assert caught.value.remedy
    assert not (folder.parent / f"{folder.name}-bundle").exists()
