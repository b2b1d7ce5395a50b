"""Which network a bundle holds: its architecture and its hyperparameters. A leaf."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

Architecture = Literal["bert", "roberta", "distilbert", "electra", "albert", "mpnet", "modernbert", "nomic_bert"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "tanh"]


class Network(BaseModel):
    """The hyperparameters of an encoder that its tensors do not tell.

    What has a default is as in BERT (Devlin et al., 2019) and is written only where it differs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(ge=1, le=1000)  # limits far beyond any BERT: what is built grows with these before any tensor
    heads: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    vocabulary_size: int = Field(ge=1)
    positions: int = Field(ge=2, le=1 << 17)  # rows of the table, or the longest text where there is none
    activation: Activation
    layer_norm_epsilon: float = Field(gt=0)
    token_types: int = Field(default=2, ge=0)
    embedding_size: int | None = Field(default=None, ge=1)  # width of the tables, where it is not hidden_size
    padding_id: int | None = Field(default=None, ge=0)  # positions count other tokens than this one, from its number on
    groups: int | None = Field(default=None, ge=1, le=1000)  # layers share the tensors of so many groups
    rotary_base: float | None = Field(default=None, gt=0)
    local_rotary_base: float | None = Field(default=None, gt=0)  # in layers that attend locally
    local_reach: int | None = Field(default=None, ge=1)  # tokens to either side that local layers attend to
    local_layers: tuple[int, ...] = ()

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep fingerprints as they are when a later architecture needs another field."""
        defaults = {name: field.default for name, field in type(self).model_fields.items() if not field.is_required()}
        written = write(self)
        return {name: value for name, value in written.items() if getattr(self, name) != defaults.get(name, ...)}

    @property
    def longest_text(self) -> int:
        """Tokens of the longest text, special ones included."""
        return self.positions - (0 if self.padding_id is None else self.padding_id + 1)
