"""An ONNX model that others exported, checked and taken over as it is.

Its graph is believed, so what can be tried is tried: it must run for any number of texts and tokens, and what lies
behind the mask must move nothing. It is given the names of bundles; outputs that bundles do not know are dropped, since
they would cost time at every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from nearshore.export.config import Configuration
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.graph.outputs import LOGITS, NEARSHORE, SEQUENCE_OUTPUT

_SEQUENCE_NAMES = (SEQUENCE_OUTPUT, "last_hidden_state", "token_embeddings")
_INTEGERS = {TensorProto.INT64: np.int64, TensorProto.INT32: np.int32}
_QUANTIZED = {"MatMulInteger", "QLinearMatMul", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulNBits"}
_HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_TOLERANCE = 1e-3  # of the largest number in a text's vectors; without the mask they move by much more
_REMEDY = "Export the checkpoint's own weights (model.safetensors) instead, or export the ONNX model anew."


class AdoptedModel:
    """A model that fits a bundle."""

    def __init__(self, folder: Path, path: Path, configuration: Configuration) -> None:
        """Read, check and rename. path: of the ONNX file in the folder. Raises UnusableCheckpointError."""
        self._folder = folder
        self._name = str(path.relative_to(folder))
        self._network = configuration.network
        self._model = self._read(path)
        self.inputs = self._check_inputs()
        self.outputs = self._choose_outputs(classifies=configuration.classifies)
        self.content: bytes = self._model.SerializeToString(deterministic=True)
        self._try()

    def _read(self, path: Path) -> Any:
        try:
            model = onnx.load_model(path, load_external_data=False)
        except Exception as error:  # OSError, or what protobuf raises
            raise self._refusal(f"cannot be read ({error})") from error
        tensors = list(_tensors(model.graph))
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors):
            raise self._refusal("has its weights in another file")
        if any(tensor.data_type in _HALVES for tensor in tensors):
            raise self._refusal("has weights of 16 bits, and bundles state what that costs")
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise self._refusal(f"is no valid model ({str(error).splitlines()[0]})") from error
        quantized = sorted({node.op_type for node in model.graph.node} & _QUANTIZED)
        if quantized:
            raise self._refusal(f"is quantized ({', '.join(quantized)}), and bundles state what that costs")
        return model

    def _check_inputs(self) -> tuple[str, ...]:
        weights = {tensor.name for tensor in self._model.graph.initializer}
        inputs = {value.name: value.type.tensor_type for value in self._model.graph.input if value.name not in weights}
        names = [name for name in (NEARSHORE.ids, NEARSHORE.mask, NEARSHORE.types) if name in inputs]
        unknown = next((name for name in inputs if name not in names), None)
        if unknown or names[:2] != [NEARSHORE.ids, NEARSHORE.mask]:
            raise self._refusal(f"takes {', '.join(inputs)}, not {NEARSHORE.ids}, {NEARSHORE.mask} and perhaps types")
        for name in names:
            if inputs[name].elem_type not in _INTEGERS:
                raise self._refusal(f"takes {name} of type {TensorProto.DataType.Name(inputs[name].elem_type)}")
            axes = [axis.dim_value or axis.dim_param or "any" for axis in inputs[name].shape.dim]
            if len(axes) != 2 or any(isinstance(axis, int) for axis in axes):
                raise self._refusal(f"takes {name} of fixed axes {tuple(axes)}, they must be open")
        return tuple(name for name in inputs if name in names)

    def _choose_outputs(self, *, classifies: bool) -> tuple[str, ...]:
        """Keep the vectors of tokens, under their name in bundles, and a classifier's scores."""
        graph = self._model.graph
        found = {value.name: value for value in graph.output}
        sequence = next((name for name in _SEQUENCE_NAMES if name in found), None)
        if sequence is None:
            raise self._refusal(f"gives {', '.join(found)}, none of {', '.join(_SEQUENCE_NAMES)}")
        if sequence != SEQUENCE_OUTPUT:
            graph.node.append(helper.make_node("Identity", [sequence], [SEQUENCE_OUTPUT]))
        shape = ["batch", "sequence", self._network.hidden_size]
        kept = [helper.make_tensor_value_info(SEQUENCE_OUTPUT, TensorProto.FLOAT, shape)]
        if classifies:
            if LOGITS not in found:
                raise self._refusal(f"is a sequence classifier's, and gives no {LOGITS}")
            kept.append(found[LOGITS])
        del graph.output[:]
        graph.output.extend(kept)
        return tuple(value.name for value in kept)

    def _try(self) -> None:
        """Run it alone, in company and padded. Raises UnusableCheckpointError."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        ids = np.arange(15).reshape(3, 5) % self._network.vocabulary_size
        mask = np.ones_like(ids)
        mask[1, 3:] = 0
        try:
            session = onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])
            together = _run(session, ids, mask)
            alone = _run(session, ids[1:2, :3], mask[1:2, :3])
        except Exception as error:  # the library's exceptions have no common base
            raise self._refusal(f"cannot be run ({str(error).splitlines()[0]})") from error
        expected = (3, 5, self._network.hidden_size)
        if together.shape != expected or together.dtype != np.float32 or not np.isfinite(together).all():
            raise self._refusal(f"gives {together.dtype} {together.shape}, not finite float32 {expected}")
        if np.abs(together[1, :3] - alone[0]).max() > _TOLERANCE * np.abs(alone).max():
            raise self._refusal("gives a text other vectors when it is padded: it does not heed the mask")

    def _refusal(self, detail: str) -> UnusableCheckpointError:
        return UnusableCheckpointError(self._folder, f"{self._name} {detail}", _REMEDY)


def _tensors(graph: Any) -> Iterator[Any]:
    """Every constant of a graph, those of its nodes and of graphs inside it included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _run(session: Any, ids: Any, mask: Any) -> Any:
    every: Mapping[str, Any] = {NEARSHORE.ids: ids, NEARSHORE.mask: mask, NEARSHORE.types: np.zeros_like(ids)}
    kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
    feeds = {one.name: every[one.name].astype(kinds[one.type]) for one in session.get_inputs()}
    found: Sequence[Any] = session.run([SEQUENCE_OUTPUT], feeds)
    return found[0]
