"""The whole encoder: embeddings, layers, outputs.

Shapes: B texts, S tokens, H hidden size, I intermediate size. The residual additions stay apart from their
normalization, because ONNX Runtime's SkipLayerNormalization is slow on CPUs.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from nearshore.export.family import Family
from nearshore.export.graph.attention import Shared, attend, group_of, share
from nearshore.export.graph.builder import GraphBuilder, ReadTensor
from nearshore.export.graph.embeddings import embed
from nearshore.export.graph.feed_forward import feed_forward
from nearshore.export.graph.heads import pooled
from nearshore.network import Network

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"  # noqa: S105
SEQUENCE_OUTPUT = "sequence_output"
POOLED_OUTPUT = "pooled_output"


def input_names(network: Network) -> tuple[str, ...]:
    """Inputs of the graph: token types only where there is a choice."""
    both = (INPUT_IDS, ATTENTION_MASK)
    return (*both, TOKEN_TYPE_IDS) if network.token_types > 1 else both


def build_encoder(family: Family, network: Network, read: ReadTensor, *, pooled_output: bool) -> bytes:
    """Build the whole encoder, as the content of an ONNX file.

    Inputs input_ids, attention_mask (1 real, 0 padding) and, by input_names, token_type_ids, int64 (B, S) with
    1 <= S <= network.longest_text. Outputs sequence_output (B, S, H) and, if asked, pooled_output (B, H), float32.
    The same tensors give the same bytes.
    """
    graph = GraphBuilder(family, network, read)
    for name in input_names(network):
        graph.input(name)
    mask = graph.add("Cast", [ATTENTION_MASK], "attention_mask.int32", to=TensorProto.INT32)
    hidden = embed(graph, ids=INPUT_IDS, types=TOKEN_TYPE_IDS)
    shared = share(graph, ids=INPUT_IDS, mask=mask)
    for layer in range(network.layers):
        last = layer == network.layers - 1 and family.final_norm is None
        hidden = _add_layer(graph, layer, hidden, shared, SEQUENCE_OUTPUT if last else f"layer.{layer}")
    if family.final_norm:
        hidden = graph.layer_norm(family.final_norm, hidden, SEQUENCE_OUTPUT)
    graph.output(hidden, ["batch", "sequence", network.hidden_size])
    if pooled_output:
        graph.output(pooled(graph, hidden, POOLED_OUTPUT), ["batch", network.hidden_size])
    content: bytes = graph.model.SerializeToString(deterministic=True)
    onnx.checker.check_model(content)
    return content


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
