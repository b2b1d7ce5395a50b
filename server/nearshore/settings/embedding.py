"""What an operator can set about the models and the engine that runs them."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from nearshore.model_names import checked
from nearshore.settings.section import Section


class EmbeddingSettings(Section):
    """The models and the engine that runs them."""

    model: str = Field(
        default="all-MiniLM-L6-v2",
        description="Name of the bundle, in model_dir, that requests mean which name no model. Without it there is no "
        "start.",
    )
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names of further bundles that are loaded at the start and stay: a list, or one text with commas.",
    )
    on_demand: bool = Field(
        default=False,
        description="Whether any other bundle in model_dir is loaded when it is first asked for, by name or by a "
        "collection of its fingerprint. What was longest unused is unloaded to make room, and what is in use when its "
        "calls are over: models that are in use all the time belong into models.",
    )
    max_model_bytes: int = Field(
        default=4 << 30,
        ge=1,
        description="Bytes of the models that are loaded at once, counted by their files (graph, tokenizer, dense "
        "layers); in memory they take some 1.4 times as much, and 1.7 times while they are loaded: see that the "
        "container has it (docs/decisions/0011).",
    )
    precision: Literal["fp32", "int8"] = Field(
        default="fp32",
        description="Graph of each bundle that is run: fp32, or int8, two to four times as fast, where the bundle has "
        "it (nearshore model get NAME --int8). Vectors of the two are not compared: a collection keeps to one. "
        "Cross-encoders are run in fp32 always.",
    )
    workers: int = Field(
        default=0, ge=0, le=256, description="Threads that run the models, one text group each; 0: one a core."
    )
    max_run_tokens: int = Field(
        default=128,
        ge=1,
        le=1 << 20,
        description="Tokens that one run of the model takes at most, unless a single text has more; bulk work half as "
        "many while queries come. A query waits for the run in progress; 128 keep a run's values in a core's own "
        "cache, and more have not been faster.",
    )
    max_queued_tokens: int = Field(
        default=1 << 20, ge=1024, le=1 << 30, description="Tokens waiting at most; more are refused with OVERLOADED."
    )
    share_in_flight: bool = Field(
        default=True,
        description="Whether identical texts that wait or run at the same time are embedded once. No bit of a vector "
        "depends on it.",
    )
    cache_bytes: int = Field(
        default=0,
        ge=0,
        description="Memory of vectors, of all models together, kept for texts that come again, as queries do; bulk "
        "requests pass it by. 0: none are kept. By the time of an answer a caller can tell whether a text was asked "
        "for before.",
    )

    _model_has_a_name = field_validator("model")(checked)

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, names: object) -> object:
        """A variable is a text: names with commas, or, as the chart writes it, a list in JSON."""
        if not isinstance(names, str):
            return names
        if names.startswith("["):
            return json.loads(names)
        return [name.strip() for name in names.split(",") if name.strip()]

    @field_validator("models")
    @classmethod
    def _models_have_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(checked, names))
