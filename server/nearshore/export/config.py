"""config.json: which network is this?

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

from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.families import FAMILIES, NOMIC_BERT
from nearshore.export.family import Family
from nearshore.network import Activation, Network

_FILE = "config.json"
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
}
_WHOLE = "Export the checkpoint as its authors published it, with every file of it."
_NOMIC_WIDTH_MULTIPLE = 256  # to which the code of NomicBERT rounds the width of gated layers up


@dataclass(frozen=True, slots=True)
class Configuration:
    """What config.json says."""

    family: Family
    network: Network
    tied: bool  # the decoder of the language head is the table of words
    classifies: bool  # the checkpoint is one of a sequence classifier


def read_configuration(folder: Path) -> Configuration:
    """Read and check config.json. Raises UnusableCheckpointError naming the key."""
    config = read_json(folder, _FILE)
    family = _find_family(folder, config)
    _check(folder, config, family)
    try:
        network = Network.model_validate(_hyperparameters(folder, config, family) | _extras(folder, config, family))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise _refusal(folder, f"{_FILE}, {family.keys.get(name, name)}: {first['msg']}") from error
    except TypeError as error:  # from arithmetic on what should be a number
        raise _refusal(folder, f"{_FILE} has a value of a wrong type ({error})") from error
    if network.hidden_size % network.heads:
        raise _refusal(folder, f"{_FILE}: {network.hidden_size} is not a multiple of {network.heads} heads")
    if network.longest_text < 2:
        raise _refusal(folder, f"{_FILE} has {network.positions} positions, too few for any text")
    architectures = config.get("architectures") or []
    classifies = any(str(name).endswith("ForSequenceClassification") for name in architectures)
    if config.get("classifier_pooling") == "mean" and family.classifier is not None:
        family = replace(family, classifier=replace(family.classifier, source="mean"))
    return Configuration(family, network, config.get("tie_word_embeddings", True) is not False, classifies)


def _find_family(folder: Path, config: Mapping[str, Any]) -> Family:
    for family in FAMILIES:
        if config.get("model_type") in family.model_types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise UnusableCheckpointError(
        folder,
        f"{_FILE} has model_type {config.get('model_type')!r}, which is not supported",
        f"Use a checkpoint of one of: {known}.",
    )


def _check(folder: Path, config: Mapping[str, Any], family: Family) -> None:
    for key, supported in {**_REQUIRED, **family.requires}.items():
        if key in config and config[key] not in supported:
            only = " or ".join(repr(value) for value in supported)
            raise _refusal(folder, f"{_FILE} has {key} {config[key]!r}, only {only} is supported")
    if config.get("auto_map") and family is not NOMIC_BERT:
        raise _refusal(folder, f"{_FILE} asks for code of its own (auto_map), which is not run")


def _hyperparameters(folder: Path, config: Mapping[str, Any], family: Family) -> dict[str, object]:
    values = dict(family.defaults)
    for name, key in family.keys.items():
        if config.get(key) is not None:
            values[name] = config[key]
        elif name not in values:
            raise _refusal(folder, f"{_FILE} lacks {key}")
    known = _GATED_ACTIVATIONS if family is NOMIC_BERT else _ACTIVATIONS
    if values["activation"] not in known:
        found, key = values["activation"], family.keys["activation"]
        raise _refusal(folder, f"{_FILE} has {key} {found!r}, supported are {', '.join(known)}")
    values["activation"] = known[str(values["activation"])]
    if values.get("embedding_size") == values["hidden_size"] and not family.always_projected:
        values["embedding_size"] = None
    return values


def _extras(folder: Path, config: Mapping[str, Any], family: Family) -> dict[str, object]:
    """Hyperparameters that are not one key."""
    match family.architecture:
        case "modernbert":
            return _modernbert(folder, config)
        case "nomic_bert":
            return _nomic(config)
        case "electra" if config.get("summary_type", "first") != "first":
            raise _refusal(folder, f"{_FILE} has summary_type {config['summary_type']!r}, only 'first' is supported")
        case _:
            return {}


def _modernbert(folder: Path, config: Mapping[str, Any]) -> dict[str, object]:
    """Local attention and rotary bases, in the spelling of transformers 4 or 5."""
    every, layers = config.get("global_attn_every_n_layers") or 3, config["num_hidden_layers"]
    kinds = config.get("layer_types") or [
        "sliding_attention" if layer % every else "full_attention" for layer in range(layers)
    ]
    if len(kinds) != layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
        raise _refusal(folder, f"{_FILE} has layer_types {kinds!r} for {layers} layers")
    rotary = config.get("rope_parameters") or {}
    bases = {"full_attention": config.get("global_rope_theta") or 160_000.0}
    bases["sliding_attention"] = config.get("local_rope_theta", 10_000.0) or bases["full_attention"]
    for kind, parameters in rotary.items():
        if not isinstance(parameters, dict) or parameters.get("rope_type", "default") != "default":
            raise _refusal(folder, f"{_FILE} has rope_parameters {rotary!r}, only rope_type 'default' is supported")
        bases[kind] = parameters.get("rope_theta", bases.get(kind))
    if config.get("rope_scaling"):
        raise _refusal(folder, f"{_FILE} has rope_scaling {config['rope_scaling']!r}, which is not supported")
    return {
        "rotary_base": bases["full_attention"],
        "local_rotary_base": bases["sliding_attention"],
        "local_reach": config.get("local_attention", 128) // 2,
        "local_layers": tuple(layer for layer, kind in enumerate(kinds) if kind == "sliding_attention"),
    }


def _nomic(config: Mapping[str, Any]) -> dict[str, object]:
    """Sizes as Nomic's code rounds them; with scaled rotary positions only as far as they are not scaled."""
    wide = config.get("n_inner") or 4 * config["n_embd"]
    multiple = config.get("pad_vocab_size_multiple") or 1
    positions = config["n_positions"]
    if config.get("rotary_scaling_factor"):
        positions = min(positions, config.get("max_trained_positions") or 2048)
    return {
        "intermediate_size": -(-wide // _NOMIC_WIDTH_MULTIPLE) * _NOMIC_WIDTH_MULTIPLE,
        "vocabulary_size": -(-config["vocab_size"] // multiple) * multiple,
        "positions": positions,
    }


def _refusal(folder: Path, detail: str) -> UnusableCheckpointError:
    return UnusableCheckpointError(folder, detail, _WHOLE)


def read_json(folder: Path, file: str, *, optional: bool = False, kind: type = dict) -> Any:
    """Content of a JSON file of the checkpoint, a dict or list as asked; empty if optional and absent."""
    path = folder / file
    if optional and not path.exists():
        return kind()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnusableCheckpointError(folder, f"{file} is missing") from error
    except (OSError, ValueError) as error:
        raise UnusableCheckpointError(folder, f"{file} cannot be read ({error})") from error
    if not isinstance(content, kind):
        raise UnusableCheckpointError(folder, f"{file} is not a JSON {kind.__name__}")
    return content
