"""Which kind of checkpoint a folder holds, and where its parts are.

Hugging Face, sentence-transformers   config.json, model.safetensors (or pytorch_model.bin), tokenizer.json (or
                                      vocab.txt)
another's ONNX model                  config.json, model.onnx or onnx/model.onnx, tokenizer.json (or vocab.txt)
TensorFlow 1 and 2                    bert_config.json, NAME.index, NAME.data-*, vocab.txt
TF Hub (SavedModel)                   saved_model.pb, keras_metadata.pb, variables/, assets/vocab.txt
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearshore.export.config import ConfigFile, read_json
from nearshore.export.errors import UnusableCheckpointError, absent
from nearshore.export.family import Family
from nearshore.export.shards import WEIGHT_FILES, ShardStore, weight_files
from nearshore.export.tensorflow.saved_model import MODEL_FILE, VARIABLES, read_saved_model
from nearshore.export.tensorflow.store import TensorFlowStore
from nearshore.export.weights import TensorStore

_MODELS = ("model.onnx", "onnx/model.onnx")  # where Hugging Face's repositories have it
_CONFIG, _TF_CONFIG, _VOCABULARY = "config.json", "bert_config.json", "vocab.txt"


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The parts of a checkpoint."""

    folder: Path
    config: ConfigFile
    weights: tuple[Path, ...]  # all files of them
    open_store: Callable[[Family], TensorStore] | None  # None: there is a model instead
    model: Path | None  # an ONNX model that is taken as it is
    vocabulary: Path | None  # vocab.txt, from which the tokenizer is made where there is no tokenizer.json
    lower_case: bool | None  # what the checkpoint says of it; None: nothing


def find_files(folder: Path, *, for_tfhub: bool = False) -> CheckpointFiles:
    """Look what is there. Raises UnusableCheckpointError.

    for_tfhub: what TensorFlow's tools would make of the checkpoint is wanted. They approximate GELU by tanh, for
    TensorFlow 1's checkpoints too, which by themselves are BERT as published, with the exact one.
    """
    if (folder / MODEL_FILE).is_file():
        return _saved_model(folder)
    hugging_face = any((folder / name).exists() for name in (_CONFIG, *WEIGHT_FILES, *_MODELS))
    indexes = [] if hugging_face else sorted(folder.glob("*.index"))
    return _tensorflow(folder, indexes, for_tfhub=for_tfhub) if indexes else _hugging_face(folder)


def _hugging_face(folder: Path) -> CheckpointFiles:
    model = next((folder / name for name in _MODELS if (folder / name).is_file()), None)
    if any((folder / name).is_file() for name in WEIGHT_FILES):
        model = None  # weights are exported, which gives what bundles promise
    files = weight_files(folder) if model is None else (model,)
    config = ConfigFile(folder, _CONFIG, read_json(folder, _CONFIG))
    vocabulary = folder / _VOCABULARY
    return CheckpointFiles(
        folder,
        config,
        files,
        (lambda family: ShardStore(folder, family.prefix)) if model is None else None,
        model,
        vocabulary if vocabulary.is_file() else None,
        read_json(folder, "tokenizer_config.json", optional=True).get("do_lower_case"),
    )


def _tensorflow(folder: Path, indexes: list[Path], *, for_tfhub: bool) -> CheckpointFiles:
    store = TensorFlowStore(folder, _newest(folder, indexes))
    values = {**read_json(folder, _TF_CONFIG), "model_type": "bert"}
    config = _with_gelu(ConfigFile(folder, _TF_CONFIG, values), tanh=store.of_objects or for_tfhub)
    heads = store.heads()
    if heads not in {None, values.get("num_attention_heads")}:
        raise config.refusal(f"has num_attention_heads {values.get('num_attention_heads')}, the weights have {heads}")
    vocabulary = _require_vocabulary(folder, _VOCABULARY)
    return CheckpointFiles(folder, config, tuple(store.files), lambda _: store, None, vocabulary, None)


def _saved_model(folder: Path) -> CheckpointFiles:
    store = TensorFlowStore(folder, VARIABLES)
    values = {**read_saved_model(folder, store), "model_type": "bert"}
    config = _with_gelu(ConfigFile(folder, MODEL_FILE, values), tanh=True)
    vocabulary = _require_vocabulary(folder, f"assets/{_VOCABULARY}")
    lower_case = store.flag("do_lower_case")
    return CheckpointFiles(folder, config, tuple(store.files), lambda _: store, None, vocabulary, lower_case)


def _newest(folder: Path, indexes: list[Path]) -> str:
    """The prefix of the checkpoint's files: of the only one, or of that which the file `checkpoint` names."""
    names = [path.name.removesuffix(".index") for path in indexes]
    if len(names) == 1:
        return names[0]
    note = folder / "checkpoint"
    text = note.read_text(encoding="utf-8", errors="replace") if note.is_file() else ""
    named = re.search(r'^model_checkpoint_path: "(?:.*/)?([^/"]+)"', text, re.MULTILINE)
    if named and named[1] in names:
        return named[1]
    raise UnusableCheckpointError(
        folder, f"it holds several checkpoints ({', '.join(names)})", "Put the files of the one you mean in a folder."
    )


def _require_vocabulary(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UnusableCheckpointError(folder, absent(folder, name), "Put the vocabulary beside the checkpoint.")
    return folder / name


def _with_gelu(config: ConfigFile, *, tanh: bool) -> ConfigFile:
    """tensorflow/models calls the approximation by tanh plainly gelu."""
    values: dict[str, Any] = dict(config.values)
    if tanh and values.get("hidden_act") == "gelu":
        values["hidden_act"] = "gelu_new"
    return ConfigFile(config.folder, config.name, values)
