"""config.json, or what says the same in another checkpoint: which network is this?

Keys that change what a network computes are read or must have the value that is done; the many others (dropout,
initialization, caching, ids of special tokens) do not matter for a forward pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nearshore.bundle import read_file
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.families import FAMILIES, MODERNBERT, NOMIC_BERT, NOMIC_CODE
from nearshore.export.family import Family
from nearshore.network import Activation, Network

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_GATED_ACTIVATIONS: Mapping[str, Activation] = {"swiglu": "silu", "geglu": "gelu"}  # Nomic's words for them
_REQUIRED: Mapping[str, tuple[object, ...]] = {
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "per_layer_config": (None, {}),
}
_WHOLE = "Export the checkpoint as its authors published it, with every file of it."
_PLAIN_ROTARY = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1.0}
_NOMIC_WIDTH_MULTIPLE = 256  # to which the code of NomicBERT rounds the width of gated layers up


@dataclass(frozen=True, slots=True)
class Configuration:
    """What config.json says."""

    family: Family
    network: Network
    tied: bool  # the decoder of the language head is the table of words
    classifies: bool  # the checkpoint is one of a sequence classifier


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """Keys and values, as config.json has them."""

    folder: Path
    name: str  # of the file, for messages
    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key."""
        return self.values.get(key, default)

    def refusal(self, detail: str, remedy: str = _WHOLE) -> UnusableCheckpointError:
        """An error about this file. detail: a clause that follows its name."""
        return UnusableCheckpointError(self.folder, f"{self.name} {detail}", remedy)


def read_configuration(config: ConfigFile) -> Configuration:
    """Find the family and its hyperparameters, and check the rest. Raises UnusableCheckpointError naming the key."""
    family = _find_family(config)
    _check(config, family)
    try:
        network = Network.model_validate(_hyperparameters(config, family) | _extras(config, family))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise config.refusal(f"has a wrong {family.keys.get(name, name)}: {first['msg']}") from error
    except TypeError as error:  # from arithmetic on what should be a number
        raise config.refusal(f"has a value of a wrong type ({error})") from error
    if network.hidden_size % network.heads:
        raise config.refusal(f"has a width of {network.hidden_size}, not a multiple of {network.heads} heads")
    if network.rotary_base and network.hidden_size // network.heads % 2:
        raise config.refusal(f"has {network.heads} heads of an odd width, which rotary positions do not have")
    if network.longest_text < 2:
        raise config.refusal(f"has {network.positions} positions, too few for any text")
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise config.refusal(f"has architectures {architectures!r}, not a list of names")
    classifies = any(str(name).endswith("ForSequenceClassification") for name in architectures)
    if family is MODERNBERT and family.classifier and config.get("classifier_pooling") == "mean":
        family = replace(family, classifier=replace(family.classifier, source="mean"))
    return Configuration(family, network, config.get("tie_word_embeddings", True) is not False, classifies)


def _find_family(config: ConfigFile) -> Family:
    for family in FAMILIES:
        if config.get("model_type") in family.model_types:
            of_code = family is NOMIC_BERT and "n_layer" in config.values and "num_hidden_layers" not in config.values
            return NOMIC_CODE if of_code else family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    found = config.get("model_type")
    raise config.refusal(f"has model_type {found!r}, which is not supported", f"Use a checkpoint of one of: {known}.")


def _check(config: ConfigFile, family: Family) -> None:
    for key, supported in {**_REQUIRED, **family.requires}.items():
        if key in config.values and config.values[key] not in supported:
            only = " or ".join(repr(value) for value in supported)
            raise config.refusal(f"has {key} {config.values[key]!r}, only {only} is supported")
    if config.get("auto_map") and family.architecture != "nomic_bert":
        raise config.refusal("asks for code of its own (auto_map), which is not run")


def _hyperparameters(config: ConfigFile, family: Family) -> dict[str, object]:
    values = dict(family.defaults)
    for name, key in family.keys.items():
        if config.get(key) is not None:
            values[name] = config.values[key]
        elif name not in values:
            raise config.refusal(f"lacks {key}")
    known = _GATED_ACTIVATIONS if family is NOMIC_CODE else _ACTIVATIONS
    if values["activation"] not in known:
        found, key = values["activation"], family.keys["activation"]
        raise config.refusal(f"has {key} {found!r}, supported are {', '.join(known)}")
    values["activation"] = known[str(values["activation"])]
    if values.get("embedding_size") == values["hidden_size"] and not family.always_projected:
        values["embedding_size"] = None
    return values


def _extras(config: ConfigFile, family: Family) -> dict[str, object]:
    """Hyperparameters that are not one key."""
    match family.architecture:
        case "modernbert":
            return _modernbert(config)
        case "nomic_bert":
            return _nomic_code(config) if family is NOMIC_CODE else _nomic(config)
        case "electra" if config.get("summary_type", "first") != "first":
            raise config.refusal(f"has summary_type {config.get('summary_type')!r}, only 'first' is supported")
        case _:
            return {}


def _modernbert(config: ConfigFile) -> dict[str, object]:
    """Local attention and rotary bases, in the spelling of transformers 4 or 5."""
    every, layers = config.get("global_attn_every_n_layers") or 3, config.values["num_hidden_layers"]
    layers = min(layers, 1001)  # more are refused with all other hyperparameters
    kinds = config.get("layer_types") or [
        "sliding_attention" if layer % every else "full_attention" for layer in range(layers)
    ]
    if len(kinds) != layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
        raise config.refusal(f"has layer_types {kinds!r} for {layers} layers")
    rotary = config.get("rope_parameters") or {}
    if not isinstance(rotary, dict):
        raise config.refusal(f"has rope_parameters {rotary!r}, not a dictionary")
    bases = {"full_attention": config.get("global_rope_theta") or 160_000.0}
    bases["sliding_attention"] = config.get("local_rope_theta", 10_000.0) or bases["full_attention"]
    for kind, parameters in rotary.items():
        if not isinstance(parameters, dict) or parameters.get("rope_type", "default") != "default":
            raise config.refusal(f"has rope_parameters {rotary!r}, only rope_type 'default' is supported")
        bases[kind] = parameters.get("rope_theta") or bases.get(kind)
    if config.get("rope_scaling"):
        raise config.refusal(f"has rope_scaling {config.get('rope_scaling')!r}, which is not supported")
    return {
        "rotary_base": bases["full_attention"],
        "local_rotary_base": bases["sliding_attention"],
        "local_reach": config.get("local_attention", 128) // 2,
        "local_layers": tuple(layer for layer, kind in enumerate(kinds) if kind == "sliding_attention"),
    }


def _nomic(config: ConfigFile) -> dict[str, Any]:
    """Rotary positions as transformers 5 has them."""
    heads, size = config.values["num_attention_heads"], config.get("head_dim")
    if size is not None and size * heads != config.values["hidden_size"]:
        raise config.refusal(f"has head_dim {size!r}, only hidden_size divided by num_attention_heads is supported")
    rotary = config.get("rope_parameters") or {}
    if not isinstance(rotary, dict):
        raise config.refusal(f"has rope_parameters {rotary!r}, not a dictionary")
    base = rotary.get("rope_theta", config.get("rope_theta", 1000.0))
    others = {key: value for key, value in rotary.items() if key != "rope_theta"}
    if base is None or not others.items() <= _PLAIN_ROTARY.items():
        raise config.refusal(f"has rope_parameters {rotary!r}, only rope_theta with rope_type 'default' is supported")
    own = {"rotary_base": base, "positions": config.values["max_position_embeddings"]}
    return own if config.get("n_layer") is None else _in_both_spellings(config, own)


def _in_both_spellings(config: ConfigFile, own: dict[str, Any]) -> dict[str, Any]:
    """What transformers 5 writes of a checkpoint of Nomic's code: its own values, and what it did not heed.

    Where the two differ, each library takes the weights for another network. Only texts may be longer in one.
    """
    ours = _hyperparameters(config, NOMIC_BERT) | own
    theirs = _hyperparameters(config, NOMIC_CODE) | _nomic_code(config)
    keys = {**NOMIC_BERT.keys, "rotary_base": "rope_theta"}
    for name, key in keys.items():
        other = NOMIC_CODE.keys[name]
        if name != "positions" and key != other and ours[name] != theirs[name]:
            raise config.refusal(
                f"has {key} {ours[name]!r} and {other} {theirs[name]!r}, which contradict each other",
                f"Set {key} and {other} to what the model was trained with.",
            )
    return {**own, "positions": max(own["positions"], theirs["positions"])}


def _nomic_code(config: ConfigFile) -> dict[str, Any]:
    """Sizes as Nomic's code rounds them; with scaled rotary positions only as far as they are not scaled."""
    multiple = config.get("pad_vocab_size_multiple") or 1
    positions = config.values["n_positions"]
    if config.get("rotary_scaling_factor"):
        positions = min(positions, config.get("max_trained_positions") or 2048)
    return {
        "intermediate_size": -(-config.values["n_inner"] // _NOMIC_WIDTH_MULTIPLE) * _NOMIC_WIDTH_MULTIPLE,
        "vocabulary_size": -(-config.values["vocab_size"] // multiple) * multiple,
        "positions": positions,
    }


def read_json(folder: Path, file: str, *, optional: bool = False, kind: type = dict) -> Any:
    """Content of a JSON file of the checkpoint, a dict or list as asked; empty if optional and absent."""
    path = folder / file
    if optional and not path.exists():
        return kind()
    try:
        content = json.loads(read_file(path).decode("utf-8"))
    except FileNotFoundError as error:
        raise UnusableCheckpointError(folder, f"{file} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        detail = getattr(error, "strerror", None) or error
        raise UnusableCheckpointError(folder, f"{file} cannot be read ({detail})") from error
    if not isinstance(content, kind):
        raise UnusableCheckpointError(folder, f"{file} is not a JSON {kind.__name__}")
    return content
