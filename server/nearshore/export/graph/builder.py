"""A graph to which nodes and constants are added in order, and the two layers that everything is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from nearshore.export.family import Family
from nearshore.network import Activation, Network
from nearshore.records import F32

ONNX_RUNTIME = "com.microsoft"  # the domain of ONNX Runtime's own operators
_ONNX = ""
_OPSET = 20  # the first with Gelu
_IR_VERSION = 10

ReadTensor = Callable[[str], F32]
"""Gives the checkpoint's tensor of that name."""


class GraphBuilder:
    """A graph in the making. Methods that add something return the name of their output."""

    def __init__(self, family: Family, network: Network, read: ReadTensor) -> None:
        """family, network: what is built; read: its tensors."""
        self.family = family
        self.network = network
        self.read = read
        self.model = helper.make_model(
            helper.make_graph([], "bert", [], []),
            opset_imports=[helper.make_opsetid(_ONNX, _OPSET), helper.make_opsetid(ONNX_RUNTIME, 1)],
            ir_version=_IR_VERSION,
            producer_name="nearshore",
        )
        self._graph = self.model.graph  # filled in place: helper.make_graph would hold a second copy of all weights
        self._constants: set[str] = set()

    def input(self, name: str, *, integer: int = TensorProto.INT64) -> None:
        """Declare an input of shape (batch, sequence)."""
        self._graph.input.append(helper.make_tensor_value_info(name, integer, ["batch", "sequence"]))

    def output(self, name: str, shape: Sequence[str | int]) -> None:
        """Declare a node's output as one of the graph's."""
        self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str | Sequence[str],
        *,
        domain: str = _ONNX,
        **attributes: Any,
    ) -> str:
        """A node; attributes are those that the ONNX operator defines. Returns its first output."""
        outputs = [output] if isinstance(output, str) else list(output)
        self._graph.node.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def constant(self, name: str, value: npt.NDArray[Any] | Callable[[], npt.NDArray[Any]]) -> str:
        """A constant, stored once however often it is asked for; a function is called only the first time."""
        if name not in self._constants:
            self._constants.add(name)
            array = value() if callable(value) else value
            self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def tensor(self, name: str) -> str:
        """The checkpoint's tensor as a constant of the same name."""
        return self.constant(name, lambda: self.read(name))

    def joined(self, name: str, modules: Sequence[str]) -> str:
        """The weights of linear layers side by side, for one product: (inputs, outputs of all)."""
        return self.constant(name, lambda: np.concatenate([self.read(f"{each}.weight").T for each in modules], axis=1))

    def joined_bias(self, name: str, modules: Sequence[str]) -> str:
        """Their biases, one after the other."""
        return self.constant(name, lambda: np.concatenate([self.read(f"{each}.bias") for each in modules]))

    def dense(self, module: str, inputs: str, output: str, *, biased: bool = True) -> str:
        """A linear layer: (..., in) to (..., out)."""
        weight = self.constant(f"{module}.weight", lambda: self.read(f"{module}.weight").T)
        if not biased:
            return self.add("MatMul", [inputs, weight], output)
        product = self.add("MatMul", [inputs, weight], f"{output}.product")
        return self.add("Add", [product, self.tensor(f"{module}.bias")], output)

    def layer_norm(self, module: str, inputs: str, output: str) -> str:
        """Normalization over the last axis (Ba et al., 2016)."""
        epsilon = self.network.layer_norm_epsilon
        parameters = [self.tensor(f"{module}.weight")]
        if self.family.biased_norms:
            parameters.append(self.tensor(f"{module}.bias"))
        return self.add("LayerNormalization", [inputs, *parameters], output, axis=-1, epsilon=epsilon)

    def activate(self, activation: Activation, inputs: str, output: str) -> str:
        """The activation of every element."""
        match activation:
            case "gelu":  # Hendrycks and Gimpel (2016)
                return self.add("Gelu", [inputs], output, approximate="none")
            case "gelu_tanh":
                return self.add("Gelu", [inputs], output, approximate="tanh")
            case "quick_gelu":  # x sigmoid(1.702 x)
                return self.add("QuickGelu", [inputs], output, domain=ONNX_RUNTIME, alpha=1.702)
            case "silu":  # x sigmoid(x)
                return self.add("QuickGelu", [inputs], output, domain=ONNX_RUNTIME, alpha=1.0)
            case "relu":
                return self.add("Relu", [inputs], output)
            case "tanh":
                return self.add("Tanh", [inputs], output)

    def integers(self, name: str, *values: int) -> str:
        """A constant vector of integers."""
        return self.constant(name, np.array(values, np.int64))
