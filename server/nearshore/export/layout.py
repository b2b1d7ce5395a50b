"""Which tensors a network has, of which shapes: what a checkpoint is checked against before anything is built."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nearshore.export.family import Family
from nearshore.network import Network

Shape = tuple[int | None, ...]
"""None: any size, as for the number of classes."""


def encoder_shapes(family: Family, network: Network) -> Mapping[str, Shape]:
    """Name and shape of every tensor of the encoder, in the order of computing. Linear layers are (outputs, inputs)."""
    hidden, wide = network.hidden_size, network.intermediate_size
    table = network.embedding_size or hidden
    shapes: dict[str, Shape] = {f"{family.words}.weight": (network.vocabulary_size, table)}
    if family.types and network.token_types:
        shapes[f"{family.types}.weight"] = (network.token_types, table)
    if family.positions:
        shapes[f"{family.positions}.weight"] = (network.positions, table)
    shapes |= norm(family, family.embeddings_norm, table)
    if has_projection(family, network):
        shapes |= linear(str(family.projection), hidden, table)
    if family.relative_positions:
        shapes[f"{family.relative_positions}.weight"] = (32, network.heads)
    for group in range(network.groups or network.layers):
        for name in family.qkv:
            shapes |= linear(name.format(group), 3 * hidden // len(family.qkv), hidden, biased=family.biased)
        shapes |= linear(family.context.format(group), hidden, hidden, biased=family.biased)
        if group or not family.pre_norm:
            shapes |= norm(family, family.attention_norm.format(group), hidden)
        widest = wide * (2 if family.gated else 1)
        for name in family.wide:
            shapes |= linear(name.format(group), widest // len(family.wide), hidden, biased=family.biased)
        shapes |= linear(family.narrow.format(group), hidden, wide, biased=family.biased)
        shapes |= norm(family, family.output_norm.format(group), hidden)
    if family.final_norm:
        shapes |= norm(family, family.final_norm, hidden)
    return shapes


def pooler_shapes(family: Family, network: Network) -> Mapping[str, Shape]:
    """Of the pooler, where the architecture has one."""
    return linear(family.pooler, network.hidden_size, network.hidden_size) if family.pooler else {}


def language_shapes(family: Family, network: Network, *, tied: bool) -> Mapping[str, Shape]:
    """Of the head that scores the vocabulary; tied: its decoder is the table of words."""
    head, table = family.language_head, network.embedding_size or network.hidden_size
    if head is None:
        return {}
    biased = family.biased if head.biased is None else head.biased
    shapes: dict[str, Shape] = {**linear(head.dense, table, network.hidden_size, biased=biased)}
    shapes |= norm(family, head.norm, table)
    if not tied:
        shapes[f"{head.decoder}.weight"] = (network.vocabulary_size, table)
    return shapes if head.bias is None else {**shapes, head.bias: (network.vocabulary_size,)}


def classifier_shapes(family: Family, network: Network) -> Mapping[str, Shape]:
    """Of the head that scores classes, however many, and of the pooler where it starts there."""
    head, hidden = family.classifier, network.hidden_size
    if head is None:
        return {}
    shapes: dict[str, Shape] = {**pooler_shapes(family, network)} if head.source == "pooled" else {}
    if head.dense is not None:
        shapes |= linear(head.dense, hidden, hidden, biased=family.biased)
    if head.norm is not None:
        shapes |= norm(family, head.norm, hidden)
    return {**shapes, **linear(head.output, None, hidden)}


def has_projection(family: Family, network: Network) -> bool:
    """Whether the tables are narrower than the layers, or projected all the same."""
    return family.projection is not None and (network.embedding_size is not None or family.always_projected)


def linear(name: str, outputs: int | None, inputs: int, *, biased: bool = True) -> Mapping[str, Shape]:
    """Of a linear layer."""
    weight: dict[str, Shape] = {f"{name}.weight": (outputs, inputs)}
    return weight | {f"{name}.bias": (outputs,)} if biased else weight


def norm(family: Family, name: str, width: int) -> Mapping[str, Shape]:
    """Of a layer normalization."""
    weight: dict[str, Shape] = {f"{name}.weight": (width,)}
    return weight | {f"{name}.bias": (width,)} if family.biased_norms else weight


def size_bytes(shapes: Mapping[str, Shape]) -> int:
    """Of all these tensors in float32; sizes that are not known count as one."""
    return 4 * sum(math.prod(size or 1 for size in shape) for shape in shapes.values())
