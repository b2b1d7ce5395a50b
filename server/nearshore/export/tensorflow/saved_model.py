"""What a SavedModel that export_tfhub wrote (github.com/tensorflow/models) says about its encoder.

Sizes are those of the variables. Only the activation, and order and epsilon of normalization are not, and Keras notes
them as JSON among the objects: in keras_metadata.pb, in older files in saved_model.pb.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.tensorflow.store import TensorFlowStore
from nearshore.export.tensorflow.wire import WireError, parts, read_message

MODEL_FILE = "saved_model.pb"
VARIABLES = "variables/variables"
_METADATA_FILE = "keras_metadata.pb"
_TABLES = "embeddings.{}_embeddings.weight"
_EPSILON = 1e-12  # of every normalization, as published


def read_saved_model(folder: Path, store: TensorFlowStore) -> Mapping[str, Any]:
    """The encoder's configuration, with the keys of bert_config.json. Raises UnusableCheckpointError."""
    names = store.places()
    layers = len({name.split(".")[2] for name in names if name.startswith("encoder.layer.")})
    needed = [_TABLES.format(table) for table in ("word", "position", "token_type")]
    needed.append("encoder.layer.0.intermediate.dense.weight")
    missing = next((name for name in needed if name not in names), None)
    heads = store.heads()
    if missing or heads is None:
        raise UnusableCheckpointError(
            folder,
            f"{VARIABLES}.index has no variable for {missing or 'the heads of attention'}",
            "Use a SavedModel of a BERT encoder, as export_tfhub of tensorflow/models writes it.",
        )
    words, positions, types, wide = (store.shape(name) for name in needed)
    encoder = _encoder_settings(folder)
    return {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "max_position_embeddings": positions[0],
        "type_vocab_size": types[0],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": wide[0],
        "hidden_act": str(encoder["activation"]).rpartition(">")[2],
    }


def _encoder_settings(folder: Path) -> Mapping[str, Any]:
    """The settings of the layer that has an activation and layers. Raises UnusableCheckpointError."""
    try:
        every = [settings for note in _keras_notes(folder) for settings in _settings(note)]
    except (OSError, WireError, RecursionError) as error:
        raise UnusableCheckpointError(folder, f"{MODEL_FILE} or {_METADATA_FILE} cannot be read ({error})") from error
    _refuse_other_norms(folder, every)
    for settings in every:
        activation = settings.get("inner_activation") or settings.get("activation")
        if isinstance(activation, str) and ("num_layers" in settings or "num_attention_heads" in settings):
            return {**settings, "activation": activation}
    raise UnusableCheckpointError(
        folder,
        f"neither {_METADATA_FILE} nor {MODEL_FILE} says which activation its encoder has",
        "Export its TensorFlow checkpoint with bert_config.json instead.",
    )


def _refuse_other_norms(folder: Path, every: Sequence[Mapping[str, Any]]) -> None:
    """Raise UnusableCheckpointError unless each normalization comes last in its part, and has BERT's epsilon."""
    for settings in every:
        if settings.get("norm_first"):
            raise UnusableCheckpointError(folder, "its encoder normalizes first (norm_first), which is not supported")
        epsilons = [settings.get("norm_epsilon")]
        layer = settings.get("config")
        if isinstance(layer, dict) and str(settings.get("class_name")).endswith("LayerNormalization"):
            epsilons.append(layer.get("epsilon"))
        other = next((epsilon for epsilon in epsilons if epsilon not in (None, _EPSILON)), None)
        if other is not None:
            detail = f"its encoder normalizes with an epsilon of {other}, only {_EPSILON} is supported"
            raise UnusableCheckpointError(folder, detail, "Use a SavedModel whose layers have BERT's own epsilon.")


def _keras_notes(folder: Path) -> Iterator[Any]:
    """Every object's note, in the newer and in the older place (fields of saved_metadata.proto, saved_model.proto)."""
    newer = folder / _METADATA_FILE
    texts: list[bytes] = []
    if newer.is_file():
        for node in parts(read_message(newer.read_bytes()), 1):
            texts += parts(read_message(node), 5)
    else:
        for graph in parts(read_message((folder / MODEL_FILE).read_bytes()), 2):
            for objects in parts(read_message(graph), 7):
                for node in parts(read_message(objects), 1):
                    for user_object in parts(read_message(node), 4):
                        texts += parts(read_message(user_object), 3)
    for text in texts:
        try:
            yield json.loads(text)
        except ValueError:
            continue  # not every object has a note


def _settings(note: Any) -> Iterator[Mapping[str, Any]]:
    """Every dictionary in a note, however deep."""
    if isinstance(note, dict):
        yield note
    for value in note.values() if isinstance(note, dict) else note if isinstance(note, list) else ():
        yield from _settings(value)
