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
_QUANTIZED = {  # operators that name it; by its type, what they work on is refused all the same
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "GatherBlockQuantized",
    "MatMulBnb4",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QGemm",
    "QLinearMatMul",
    "QuantizeLinear",
}
_HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_WHOLE = {
    TensorProto.UNDEFINED,  # of an attribute that is no tensor
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}
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
        self.labels = 0
        """Of its logits; 0: it gives none."""
        self._try()

    def _read(self, path: Path) -> Any:
        try:
            model = onnx.load_model(path, load_external_data=False)
        except Exception as error:  # OSError, or what protobuf raises
            raise self._refusal(f"cannot be read ({error})") from error
        bodies = list(_bodies(model))
        tensors = [tensor for body in bodies for tensor in _tensors(body)]
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors):
            raise self._refusal("has its weights in another file")
        self._refuse_quantized(bodies, {tensor.data_type for tensor in tensors})
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise self._refusal(f"is no valid model ({str(error).splitlines()[0]})") from error
        return model

    def _refuse_quantized(self, bodies: Sequence[Any], types: set[int]) -> None:
        """Refuse weights of less than 32 bits, whatever computes with them. types: of all constants."""
        quantized = sorted({node.op_type for body in bodies for node in body.node} & _QUANTIZED)
        if quantized:
            raise self._refusal(f"is quantized ({', '.join(quantized)}), and bundles state what that costs")
        if types & _HALVES:
            raise self._refusal("has weights of 16 bits, and bundles state what that costs")
        others = sorted(types - _WHOLE)
        if others:
            names = {number: name for name, number in TensorProto.DataType.items()}
            spelt = ", ".join(names.get(number, str(number)) for number in others)
            raise self._refusal(f"has constants of type {spelt}, as quantized weights have, and not float32 ones")

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
            logits = _run(session, ids, mask, LOGITS) if LOGITS in self.outputs else np.empty((3, 0))
        except Exception as error:  # the library's exceptions have no common base
            raise self._refusal(f"cannot be run ({str(error).splitlines()[0]})") from error
        expected = (3, 5, self._network.hidden_size)
        if together.shape != expected or together.dtype != np.float32 or not np.isfinite(together).all():
            raise self._refusal(f"gives {together.dtype} {together.shape}, not finite float32 {expected}")
        if np.abs(together[1, :3] - alone[0]).max() > _TOLERANCE * np.abs(alone).max():
            raise self._refusal("gives a text other vectors when it is padded: it does not heed the mask")
        if logits.ndim != 2 or len(logits) != 3:
            raise self._refusal(f"gives {LOGITS} of shape {logits.shape} for 3 texts, not one row a text")
        self.labels = logits.shape[1]

    def _refusal(self, detail: str) -> UnusableCheckpointError:
        return UnusableCheckpointError(self._folder, f"{self._name} {detail}", _REMEDY)


def _bodies(model: Any) -> Iterator[Any]:
    """The graph of a model, its functions, and every graph inside a node of these."""
    waiting = [model.graph, *model.functions]
    while waiting:
        body = waiting.pop()
        yield body
        for attribute in _attributes(body):
            waiting += (attribute.g, *attribute.graphs)


def _attributes(body: Any) -> Iterator[Any]:
    """Those of the nodes of a graph or function; a function may have some of its own."""
    for node in body.node:
        yield from node.attribute
    yield from getattr(body, "attribute_proto", ())


def _tensors(body: Any) -> Iterator[Any]:
    """Every constant of a graph or function, those of its nodes included."""
    yield from getattr(body, "initializer", ())
    sparse = list(getattr(body, "sparse_initializer", ()))
    for attribute in _attributes(body):
        yield from (attribute.t, *attribute.tensors)
        sparse += (attribute.sparse_tensor, *attribute.sparse_tensors)
    for each in sparse:
        yield from (each.values, each.indices)


def _run(session: Any, ids: Any, mask: Any, output: str = SEQUENCE_OUTPUT) -> Any:
    every: Mapping[str, Any] = {NEARSHORE.ids: ids, NEARSHORE.mask: mask, NEARSHORE.types: np.zeros_like(ids)}
    kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
    feeds = {one.name: every[one.name].astype(kinds[one.type]) for one in session.get_inputs()}
    found: Sequence[Any] = session.run([output], feeds)
    return found[0]
