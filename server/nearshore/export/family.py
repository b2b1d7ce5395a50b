"""What is said of an architecture: where its hyperparameters are, the names of its parts, and its switches.

Names of parts are those of the checkpoint without `.weight` and `.bias`; `{}` is the number of a layer, or of the group
whose tensors it shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nearshore.network import Activation, Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageHead:
    """Scores of the whole vocabulary for each token (masked language modelling)."""

    dense: str
    biased: bool | None = None  # that dense layer; None: as the layers are
    norm: str
    decoder: str  # its weight may be absent: it is the table of words
    bias: str | None = None  # whole name of the bias that is added where the decoder has none of its own
    activation: Activation | None = None  # None: the network's


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """Scores of classes for each text, or pair of texts."""

    source: Literal["pooled", "first", "mean"]  # the pooler's output, the first token, the mean of all real tokens
    output: str  # always biased
    dense: str | None = None  # biased as the layers are
    activation: Activation = "tanh"
    norm: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One architecture."""

    architecture: Architecture
    model_types: tuple[str, ...]  # that config.json may have
    prefix: str  # of the encoder's names, where the checkpoint is of a model with heads
    # config.json
    keys: Mapping[str, str]  # hyperparameter of a Network: its key
    defaults: Mapping[str, object] = field(default_factory=dict)  # of hyperparameters that may be absent
    requires: Mapping[str, tuple[object, ...]] = field(default_factory=dict)  # key: values that are done; may be absent
    # embeddings
    words: str
    types: str | None = None
    positions: str | None = None
    embeddings_norm: str
    projection: str | None = None  # from the width of the tables to that of the layers
    always_projected: bool = False  # even where the two widths are equal
    relative_positions: str | None = None  # bias of attention by distance
    # layers
    qkv: tuple[str, ...]  # three modules, or one that holds all three
    context: str  # what follows attention
    attention_norm: str
    wide: tuple[str, ...]  # where gated, the activated half comes first
    narrow: str
    output_norm: str
    final_norm: str | None = None
    gated: bool = False  # act(a) * b, a and b being the halves of the wide layer (Shazeer, 2020)
    pre_norm: bool = False  # normalization before each part, and none before the first (ModernBERT)
    biased: bool = True  # dense layers of the encoder
    biased_norms: bool = True
    word_pieces: bool = True  # the tokenizer is BERT's, so that a vocab.txt says all of it
    # heads
    pooler: str | None = None
    language_head: LanguageHead | None = None
    classifier: Classifier | None = None
    heads: tuple[str, ...] = ()  # how the names of heads begin, which may be there and not be exported
    renamed: Family | None = None  # the same with other names of parts, told by that of embeddings_norm
