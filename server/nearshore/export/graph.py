"""Writes a BERT encoder as an ONNX graph, node by node, with the onnx package.

The network is that of Devlin et al., "BERT" (2019): embeddings (word + token type + position, normalized), then
layers of self-attention and a two-layer perceptron, each added to its input and normalized (post-norm). Tensors have
the names of Hugging Face's BertModel. Shapes: B texts, S tokens, H hidden size, I intermediate size.

Self-attention is ONNX Runtime's own Attention operator, the rest is ONNX. The residual additions stay apart from
their normalization, because ONNX Runtime's SkipLayerNormalization is slow on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nearshore.bundle import Network
from nearshore.records import F32

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"  # noqa: S105
INPUTS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
SEQUENCE_OUTPUT = "sequence_output"
POOLED_OUTPUT = "pooled_output"

ReadTensor = Callable[[str], F32]
"""Gives the checkpoint's tensor of that name."""

_OPSET = 20  # the first with Gelu
_IR_VERSION = 10
_ONNX = ""
_ONNX_RUNTIME = "com.microsoft"
_APPROXIMATION = {"gelu": "none", "gelu_tanh": "tanh"}


def build_bert(network: Network, read: ReadTensor, *, pooled_output: bool) -> bytes:
    """Build the whole encoder, as the content of an ONNX file.

    Inputs input_ids, attention_mask (1 real, 0 padding) and token_type_ids, int64 (B, S) with 1 <= S <= positions.
    Outputs sequence_output (B, S, H) and, if asked, pooled_output (B, H) = tanh(dense(first token)), both float32.
    The same tensors give the same bytes.
    """
    bert = _Bert(network, read)
    for name in INPUTS:
        bert.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]))
    hidden = bert.embeddings()
    mask = bert.add("Cast", [ATTENTION_MASK], "attention_mask.int32", to=TensorProto.INT32)
    for layer in range(network.layers):
        name = SEQUENCE_OUTPUT if layer == network.layers - 1 else f"encoder.layer.{layer}"
        attended = bert.attention(f"encoder.layer.{layer}.attention", hidden, mask)
        hidden = bert.perceptron(f"encoder.layer.{layer}", attended, name)
    bert.output(hidden, ["batch", "sequence", network.hidden_size])
    if pooled_output:
        bert.output(bert.pooler(hidden), ["batch", network.hidden_size])
    content: bytes = bert.model.SerializeToString(deterministic=True)
    onnx.checker.check_model(content)
    return content


class _Bert:
    """A graph to which nodes and constants are added in order. Methods return the name of their output."""

    def __init__(self, network: Network, read: ReadTensor) -> None:
        self.network = network
        self.read = read
        self.model = helper.make_model(
            helper.make_graph([], "bert", [], []),
            opset_imports=[helper.make_opsetid(_ONNX, _OPSET), helper.make_opsetid(_ONNX_RUNTIME, 1)],
            ir_version=_IR_VERSION,
            producer_name="nearshore",
        )
        self.graph = self.model.graph  # filled in place: helper.make_graph would hold a second copy of all weights

    def embeddings(self) -> str:
        """Sum of three tables, normalized: (B, S) ids to (B, S, H)."""
        words = self.add("Gather", [self.tensor("embeddings.word_embeddings.weight"), INPUT_IDS], "embeddings.words")
        types = self.tensor("embeddings.token_type_embeddings.weight")
        types = self.add("Gather", [types, TOKEN_TYPE_IDS], "embeddings.types")
        length = self.add("Shape", [INPUT_IDS], "sequence_length", start=1, end=2)
        zero = self.constant("zero", np.zeros(1, np.int64))
        positions = self.tensor("embeddings.position_embeddings.weight")
        positions = self.add("Slice", [positions, zero, length, zero], "embeddings.positions")
        total = self.add("Add", [words, types], "embeddings.words_and_types")
        total = self.add("Add", [total, positions], "embeddings.sum")
        return self.layer_norm("embeddings.LayerNorm", total, "embeddings")

    def attention(self, name: str, hidden: str, mask: str) -> str:
        """Multi-head self-attention, its output projection, residual and normalization: (B, S, H) to the same."""
        parts = ("query", "key", "value")
        weight = np.concatenate([self.read(f"{name}.self.{part}.weight").T for part in parts], axis=1)
        bias = np.concatenate([self.read(f"{name}.self.{part}.bias") for part in parts])
        context = self.add(
            "Attention",
            [hidden, self.constant(f"{name}.self.weight", weight), self.constant(f"{name}.self.bias", bias), mask],
            f"{name}.self",
            domain=_ONNX_RUNTIME,
            num_heads=self.network.heads,
        )
        projected = self.dense(f"{name}.output.dense", context)
        residual = self.add("Add", [projected, hidden], f"{name}.residual")
        return self.layer_norm(f"{name}.output.LayerNorm", residual, name)

    def perceptron(self, name: str, hidden: str, output: str) -> str:
        """Dense to I, GELU, dense to H, residual and normalization: (B, S, H) to the same."""
        wide = self.dense(f"{name}.intermediate.dense", hidden)
        active = self.add("Gelu", [wide], f"{name}.intermediate", approximate=_APPROXIMATION[self.network.activation])
        narrow = self.dense(f"{name}.output.dense", active)
        residual = self.add("Add", [narrow, hidden], f"{name}.residual")
        return self.layer_norm(f"{name}.output.LayerNorm", residual, output)

    def pooler(self, hidden: str) -> str:
        """The first token through a dense layer and tanh: (B, S, H) to (B, H)."""
        first = self.add("Gather", [hidden, self.constant("first", np.array(0, np.int64))], "pooler.first", axis=1)
        return self.add("Tanh", [self.dense("pooler.dense", first)], POOLED_OUTPUT)

    def dense(self, name: str, inputs: str) -> str:
        """A linear layer: (..., in) to (..., out)."""
        weight = self.constant(f"{name}.weight", self.read(f"{name}.weight").T)
        product = self.add("MatMul", [inputs, weight], f"{name}.product")
        return self.add("Add", [product, self.tensor(f"{name}.bias")], name)

    def layer_norm(self, name: str, inputs: str, output: str) -> str:
        """Normalization over the last axis (Ba et al., 2016)."""
        scale, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        epsilon = self.network.layer_norm_epsilon
        return self.add("LayerNormalization", [inputs, scale, bias], output, axis=-1, epsilon=epsilon)

    def output(self, name: str, shape: Sequence[str | int]) -> None:
        """Declare a node's output as one of the graph's."""
        self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def tensor(self, name: str) -> str:
        """The checkpoint's tensor as a constant of the same name."""
        return self.constant(name, self.read(name))

    def constant(self, name: str, value: F32 | npt.NDArray[np.int64]) -> str:
        """A constant."""
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str, *, domain: str = _ONNX, **attributes: Any) -> str:
        """A node with one output; attributes are those that the ONNX operator defines."""
        self.graph.node.append(helper.make_node(operator, inputs, [output], output, domain=domain, **attributes))
        return output
