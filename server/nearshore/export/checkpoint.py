"""Reads a BERT checkpoint folder in the Hugging Face or sentence-transformers layout, and refuses any other.

Files: config.json and model.safetensors (the network), tokenizer.json and tokenizer_config.json; from
sentence-transformers, where present, modules.json, 1_Pooling/config.json, sentence_bert_config.json and
config_sentence_transformers.json; README.md for the licence. Without modules.json the sentence-transformers default
for plain encoders holds: mean pooling, no normalization.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from nearshore.bundle import Network, Pooling
from nearshore.errors import PreconditionError
from nearshore.records import F32

WEIGHTS_FILE = "model.safetensors"
_ACTIVATIONS: Mapping[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_POOLINGS = {"mean_tokens": Pooling.MEAN, "cls_token": Pooling.CLS}


class UnusableCheckpointError(PreconditionError):
    """The checkpoint is broken, or not of a kind that can be exported."""

    reason = "CHECKPOINT_UNUSABLE"

    def __init__(self, folder: Path, detail: str) -> None:
        """folder: of the checkpoint; detail: a clause that says what is wrong or missing."""
        super().__init__(
            f"The checkpoint in {folder} cannot be exported: {detail}.",
            "Use a complete BERT checkpoint (model_type bert, model.safetensors, tokenizer.json).",
            checkpoint=folder,
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the configuration files of a checkpoint say, checked."""

    folder: Path
    network: Network
    max_tokens: int
    pooling: Pooling
    normalize: bool
    license: str


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and check all but tensors and tokenizer. Raises UnusableCheckpointError naming what is missing."""
    network = _read_network(folder)
    pooling, normalize = _read_modules(folder)
    _refuse_text_changes(folder)
    return Checkpoint(folder, network, _read_max_tokens(folder, network), pooling, normalize, _read_license(folder))


def _read_network(folder: Path) -> Network:
    config = read_json(folder, "config.json")
    for key, supported in (("model_type", "bert"), ("position_embedding_type", "absolute"), ("is_decoder", False)):
        found = config.get(key, None if key == "model_type" else supported)
        if found != supported:
            raise UnusableCheckpointError(folder, f"config.json has {key} {found!r}, only {supported!r} is supported")
    activation = config.get("hidden_act")
    if activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UnusableCheckpointError(folder, f"config.json has hidden_act {activation!r}, supported are {known}")
    try:
        network = Network(
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            vocabulary_size=config["vocab_size"],
            positions=config["max_position_embeddings"],
            activation=_ACTIVATIONS[activation],
            layer_norm_epsilon=config["layer_norm_eps"],
        )
    except KeyError as error:
        raise UnusableCheckpointError(folder, f"config.json lacks {error.args[0]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UnusableCheckpointError(folder, f"config.json, {first['loc'][0]}: {first['msg']}") from error
    if network.hidden_size % network.heads:
        raise UnusableCheckpointError(folder, f"{network.hidden_size} is not a multiple of {network.heads} heads")
    return network


def _read_modules(folder: Path) -> tuple[Pooling, bool]:
    if not (folder / "modules.json").exists():
        return Pooling.MEAN, False
    pooling, normalize = Pooling.MEAN, False
    for module in read_json(folder, "modules.json", kind=list):
        kind = str(module.get("type")).rpartition(".")[2]
        match kind:
            case "Transformer":
                if module.get("path"):
                    raise UnusableCheckpointError(folder, f"its transformer lies in {module['path']!r}, export that")
            case "Pooling":
                pooling = _read_pooling(folder, f"{module.get('path')}/config.json")
            case "Normalize":
                normalize = True
            case _:
                raise UnusableCheckpointError(folder, f"modules.json asks for {kind}, which is not supported")
    return pooling, normalize


def _read_pooling(folder: Path, file: str) -> Pooling:
    config = read_json(folder, file)
    modes = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True]
    modes = [mode for mode in modes if mode != "include_prompt"]
    if isinstance(config.get("pooling_mode"), str):  # how newer versions of sentence-transformers write it
        modes = [{"mean": "mean_tokens", "cls": "cls_token"}.get(config["pooling_mode"], config["pooling_mode"])]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise UnusableCheckpointError(folder, f"{file} asks for {modes}, supported is one of {sorted(_POOLINGS)}")
    return _POOLINGS[modes[0]]


def _refuse_text_changes(folder: Path) -> None:
    """Refuse what would change a text before the tokenizer sees it."""
    name = read_json(folder, "config_sentence_transformers.json", optional=True).get("default_prompt_name")
    if name is not None:
        raise UnusableCheckpointError(folder, f"it puts the prompt {name!r} before each text, which is not supported")
    if read_json(folder, "sentence_bert_config.json", optional=True).get("do_lower_case"):
        raise UnusableCheckpointError(folder, "sentence_bert_config.json asks for do_lower_case, not supported")


def _read_max_tokens(folder: Path, network: Network) -> int:
    tokenizer = read_json(folder, "tokenizer_config.json", optional=True)
    if tokenizer.get("truncation_side", "right") != "right":
        raise UnusableCheckpointError(folder, "tokenizer_config.json truncates on the left, which is not supported")
    limit = read_json(folder, "sentence_bert_config.json", optional=True).get("max_seq_length")
    if limit is None:
        limit = min(int(tokenizer.get("model_max_length", network.positions)), network.positions)
    if not isinstance(limit, int) or not 2 <= limit <= network.positions:
        raise UnusableCheckpointError(folder, f"max_seq_length is {limit!r}, not 2 to {network.positions} positions")
    return limit


def _read_license(folder: Path) -> str:
    """The `license:` of the model card's front matter."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    found = re.match(r"---\n(?:.*\n)*?license:[ \t]*(\S+)", text)
    return found.group(1).strip("'\"") if found else "unknown"


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


class Tensors:
    """The checked tensors of model.safetensors, under the names of BertModel. Reads one at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Open the file and check names and shapes. Raises UnusableCheckpointError."""
        self._folder = checkpoint.folder
        self._file = _open_weights(checkpoint.folder)
        self._stored = {_bert_model_name(name): name for name in self._file.offset_keys()}
        self.has_pooler = "pooler.dense.weight" in self._stored
        for name, shape in expected_shapes(checkpoint.network, pooler=self.has_pooler).items():
            self._check(name, shape)

    def read(self, name: str) -> F32:
        """The tensor of that name, as float32."""
        tensor: F32 = self._file.get_tensor(self._stored[name]).astype(np.float32, copy=False)
        return tensor

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        if name not in self._stored:
            raise UnusableCheckpointError(self._folder, f"{WEIGHTS_FILE} lacks the tensor {name}")
        header = self._file.get_slice(self._stored[name])
        if tuple(header.get_shape()) != shape:
            found = tuple(header.get_shape())
            raise UnusableCheckpointError(self._folder, f"{name} has shape {found}, by config.json it is {shape}")
        if header.get_dtype() not in {"F32", "F16"}:
            kind = header.get_dtype()
            raise UnusableCheckpointError(self._folder, f"{name} has type {kind}, supported are F32 and F16")


def _open_weights(folder: Path) -> Any:
    try:
        return safe_open(folder / WEIGHTS_FILE, framework="numpy")
    except FileNotFoundError as error:
        raise UnusableCheckpointError(folder, f"{WEIGHTS_FILE} is missing") from error
    except (OSError, SafetensorError) as error:
        raise UnusableCheckpointError(folder, f"{WEIGHTS_FILE} cannot be read ({error})") from error


def _bert_model_name(stored: str) -> str:
    """BertForX puts `bert.` before each name; the first conversions kept TensorFlow's gamma and beta."""
    name = stored.removeprefix("bert.")
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def expected_shapes(network: Network, *, pooler: bool) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every tensor of a BertModel with two token types."""
    hidden, wide = network.hidden_size, network.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (network.vocabulary_size, hidden),
        "embeddings.position_embeddings.weight": (network.positions, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
    }
    dense = {"pooler.dense": (hidden, hidden)} if pooler else {}
    norms = ["embeddings.LayerNorm"]
    for layer in range(network.layers):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            dense[f"{name}.attention.{part}"] = (hidden, hidden)
        dense[f"{name}.intermediate.dense"] = (wide, hidden)
        dense[f"{name}.output.dense"] = (hidden, wide)
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    for name, (outputs, inputs) in dense.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    for name in norms:
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    return shapes
