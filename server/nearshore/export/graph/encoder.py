"""The whole encoder: embeddings, layers, outputs.

Shapes: B texts, S tokens, H hidden size, I intermediate size. The residual additions stay apart from their
normalization, because ONNX Runtime's SkipLayerNormalization is slow on CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from nearshore.bundle import weights_beside
from nearshore.export.config import Configuration
from nearshore.export.graph.attention import Shared, attend, group_of, share
from nearshore.export.graph.builder import GraphBuilder, Integers, ReadTensor
from nearshore.export.graph.constants import KeepConstant, keep_within, keeping_beside
from nearshore.export.graph.embeddings import embed
from nearshore.export.graph.feed_forward import feed_forward
from nearshore.export.graph.heads import classify, pool, score_vocabulary
from nearshore.export.graph.outputs import (
    DEFAULT,
    LOGITS,
    MLM_LOGITS,
    POOLED_OUTPUT,
    SEQUENCE_OUTPUT,
    Outputs,
)


def write_encoder(
    path: Path,
    configuration: Configuration,
    read: ReadTensor,
    outputs: Outputs,
    *,
    integers: Integers | None = None,
    beside: bool = False,
) -> None:
    """Build the whole encoder, write it to an ONNX file, and check that.

    Inputs: ids, mask (1 real, 0 padding; only where outputs are masked) and, where there is a choice, token types,
    integers (B, S) with 1 <= S <= network.longest_text. Outputs: those of outputs.shapes, float32. integers: which
    products are computed in integers, None for none; beside: whether the weights go to weights_beside(path), tensor by
    tensor, as they must where they are more than a file of ONNX holds. The same tensors give the same bytes.
    """
    if beside:
        with keeping_beside(weights_beside(path)) as keep:
            graph = _build(configuration, read, outputs, integers, keep)
        path.write_bytes(graph.model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(path))  # by its path, for it looks whether the weights are there
        return
    graph = _build(configuration, read, outputs, integers, keep_within)
    content: bytes = graph.model.SerializeToString(deterministic=True)
    del graph  # one copy of all weights less, before the check makes another
    path.write_bytes(content)
    onnx.checker.check_model(content)


def _build(
    configuration: Configuration, read: ReadTensor, outputs: Outputs, integers: Integers | None, keep: KeepConstant
) -> GraphBuilder:
    family, network, contract = configuration.family, configuration.network, outputs.contract
    graph = GraphBuilder(family, network, read, integers, keep)
    for name in outputs.input_names(network):
        graph.input(name, integer=contract.integers)
    mask = contract.mask if outputs.masked else ""
    if mask and contract.integers != TensorProto.INT32:
        mask = graph.add("Cast", [mask], "attention_mask.int32", to=TensorProto.INT32)
    hidden = embed(graph, ids=contract.ids, types=contract.types)
    shared = share(graph, ids=contract.ids, mask=mask)
    states = [hidden]
    for layer in range(network.layers):
        last = layer == network.layers - 1 and family.final_norm is None
        hidden = _add_layer(graph, layer, hidden, shared, SEQUENCE_OUTPUT if last else f"layer.{layer}")
        states.append(hidden)
    if family.final_norm:
        states[-1] = graph.layer_norm(family.final_norm, hidden, SEQUENCE_OUTPUT)
    _add_outputs(graph, configuration, outputs, states)
    return graph


def _add_outputs(graph: GraphBuilder, configuration: Configuration, outputs: Outputs, states: Sequence[str]) -> None:
    """Heads and names. states: the embeddings and every layer's output; the last is sequence_output."""
    family, contract, hidden = graph.family, outputs.contract, states[-1]
    pooled = ""
    if outputs.pooled or (outputs.classes and family.classifier and family.classifier.source == "pooled"):
        pooled = pool(graph, hidden, POOLED_OUTPUT)
    if outputs.default:
        graph.add("Identity", [pooled], DEFAULT)
    if outputs.all_layers:
        for number, state in enumerate(states[contract.first :]):
            graph.add("Identity", [state], contract.hidden.format(number))
    if outputs.mlm and family.language_head:
        score_vocabulary(graph, family.language_head, hidden, tied=configuration.tied, output=MLM_LOGITS)
    if outputs.classes and family.classifier:
        classify(graph, family.classifier, hidden, pooled=pooled, mask=contract.mask, output=LOGITS)
    for name, shape in outputs.shapes(graph.network).items():
        graph.output(name, shape)


def _add_layer(graph: GraphBuilder, layer: int, hidden: str, shared: Shared, output: str) -> str:
    """Attention and feed-forward, each added to its input: (B, S, H) to the same."""
    family = graph.family
    group = group_of(graph.network, layer)
    name = f"layer.{layer}"
    attention_norm, output_norm = family.attention_norm.format(group), family.output_norm.format(group)
    if family.pre_norm:
        normal = graph.layer_norm(attention_norm, hidden, f"{name}.attention.input") if layer else hidden
        hidden = graph.add("Add", [_attended(graph, layer, normal, shared), hidden], f"{name}.attention")
        normal = graph.layer_norm(output_norm, hidden, f"{name}.feed_forward.input")
        return graph.add("Add", [feed_forward(graph, layer, normal), hidden], output)
    total = graph.add("Add", [_attended(graph, layer, hidden, shared), hidden], f"{name}.attention.residual")
    hidden = graph.layer_norm(attention_norm, total, f"{name}.attention")
    total = graph.add("Add", [feed_forward(graph, layer, hidden), hidden], f"{name}.feed_forward.residual")
    return graph.layer_norm(output_norm, total, output)


def _attended(graph: GraphBuilder, layer: int, hidden: str, shared: Shared) -> str:
    """Attention and its output projection."""
    context = attend(graph, layer, hidden, shared)
    module = graph.family.context.format(group_of(graph.network, layer))
    return graph.dense(module, context, f"layer.{layer}.attention.projected", biased=graph.family.biased)
