"""A graph to which nodes and constants are added in order, and the two layers that everything is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from nearshore.export.family import Family
from nearshore.export.graph.constants import KeepConstant, keep_within
from nearshore.network import Activation, Network
from nearshore.records import F32

ONNX_RUNTIME = "com.microsoft"  # the domain of ONNX Runtime's own operators
_ONNX = ""
_OPSET = 20  # the first with Gelu
_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Linear:
    """The parameters of a linear layer, read when they are needed."""

    weight_name: str
    weight: Callable[[], F32]  # (in, out)
    bias_name: str
    bias: Callable[[], F32] | None  # (out,)


ReadTensor = Callable[[str], F32]
"""Gives the checkpoint's tensor of that name."""


class Integers(Protocol):
    """Products that are computed in integers."""

    def takes(self, activation: str) -> bool:
        """Whether the product of this activation is one of them."""
        ...

    def multiply(
        self, graph: GraphBuilder, activation: str, weight: F32, bias: F32 | None, outputs: Sequence[str]
    ) -> None:
        """Add activation (..., in) times weight (in, out), plus bias (out,); each output has as many of the columns."""
        ...


class GraphBuilder:
    """A graph in the making. Methods that add something return the name of their output."""

    def __init__(
        self,
        family: Family,
        network: Network,
        read: ReadTensor,
        integers: Integers | None = None,
        keep: KeepConstant = keep_within,
    ) -> None:
        """family, network: what is built; read: its tensors; integers: where float32 is left, None for nowhere.

        keep: where the numbers of constants go.
        """
        self.family = family
        self.network = network
        self.read = read
        self._integers = integers
        self._keep = keep
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
            self._graph.initializer.append(self._keep(name, array))
        return name

    def tensor(self, name: str) -> str:
        """The checkpoint's tensor as a constant of the same name."""
        return self.constant(name, lambda: self.read(name))

    def in_integers(self, activation: str) -> bool:
        """Whether the product of this activation leaves float32."""
        return self._integers is not None and self._integers.takes(activation)

    def joined(self, name: str, modules: Sequence[str], *, biased: bool) -> Linear:
        """Linear layers side by side, for one product; name: of their constants."""
        bias = partial(self._joined_biases, modules) if biased else None
        return Linear(f"{name}.weight", partial(self._joined_weights, modules), f"{name}.bias", bias)

    def dense(self, module: str, inputs: str, output: str, *, biased: bool = True) -> str:
        """A linear layer: (..., in) to (..., out)."""
        bias = partial(self.read, f"{module}.bias") if biased else None
        linear = Linear(f"{module}.weight", lambda: self.read(f"{module}.weight").T, f"{module}.bias", bias)
        return self.multiply(inputs, linear, output)

    def multiply(self, inputs: str, linear: Linear, output: str) -> str:
        """A linear layer, in integers where the product of these inputs is to be: (..., in) to (..., out)."""
        if self._integers is not None and self._integers.takes(inputs):
            bias = linear.bias() if linear.bias else None
            self._integers.multiply(self, inputs, linear.weight(), bias, [output])
            return output
        weight = self.constant(linear.weight_name, linear.weight)
        if linear.bias is None:
            return self.add("MatMul", [inputs, weight], output)
        product = self.add("MatMul", [inputs, weight], f"{output}.product")
        return self.add("Add", [product, self.constant(linear.bias_name, linear.bias)], output)

    def multiply_apart(self, inputs: str, linear: Linear, product: str, outputs: Sequence[str]) -> None:
        """Like multiply, each output with as many of the columns; product: what has all, where one product does it."""
        if self._integers is not None and self._integers.takes(inputs):
            bias = linear.bias() if linear.bias else None
            self._integers.multiply(self, inputs, linear.weight(), bias, outputs)
        else:
            self.add("Split", [self.multiply(inputs, linear, product)], outputs, axis=-1, num_outputs=len(outputs))

    def _joined_weights(self, modules: Sequence[str]) -> F32:
        return np.concatenate([self.read(f"{each}.weight").T for each in modules], axis=1)

    def _joined_biases(self, modules: Sequence[str]) -> F32:
        return np.concatenate([self.read(f"{each}.bias") for each in modules])

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
