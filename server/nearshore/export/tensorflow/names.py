"""What each variable of a TensorFlow BERT is called in Hugging Face's BertForPreTraining.

Two generations: google-research/bert (TensorFlow 1), and the encoders of tensorflow/models (TensorFlow 2), which keep
one kernel for each head. Kernels are (inputs, outputs), Hugging Face's weights (outputs, inputs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

_PARTS = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
_TF1 = {
    r"bert/embeddings/(word|position|token_type)_embeddings": r"embeddings.\1_embeddings.weight",
    r"cls/predictions/output_bias": "cls.predictions.bias",
    r"cls/seq_relationship/output_(weights|bias)": r"cls.seq_relationship.\1",
}
_MODULE = r"(?P<module>.+)/(?P<part>kernel|bias|gamma|beta)"
_TF2_MODULES: Mapping[str, str] = {
    r"embeddings/layer_norm": "embeddings.LayerNorm",
    r"transformer/layer_(\d+)/self_attention/(query|key|value)": r"encoder.layer.\1.attention.self.\2",
    r"transformer/layer_(\d+)/self_attention/attention_output": r"encoder.layer.\1.attention.output.dense",
    r"transformer/layer_(\d+)/self_attention_layer_norm": r"encoder.layer.\1.attention.output.LayerNorm",
    r"transformer/layer_(\d+)/intermediate": r"encoder.layer.\1.intermediate.dense",
    r"transformer/layer_(\d+)/output": r"encoder.layer.\1.output.dense",
    r"transformer/layer_(\d+)/output_layer_norm": r"encoder.layer.\1.output.LayerNorm",
    r"pooler_transform": "pooler.dense",
    r"cls/predictions/transform/dense": "cls.predictions.transform.dense",
    r"cls/predictions/transform/LayerNorm": "cls.predictions.transform.LayerNorm",
    r"cls/predictions/output_bias": "cls.predictions",
    r"(next_sentence/.*)": r"cls.\1",
}
_TF2_TABLES = {
    "word_embeddings/embeddings": "embeddings.word_embeddings.weight",
    "position_embedding/embeddings": "embeddings.position_embeddings.weight",
    "type_embeddings/embeddings": "embeddings.token_type_embeddings.weight",
}
_TRAINING = re.compile(r"(.*/)?(adam_[mv]|Adam(_1)?|beta[12]_power)")


def is_of_training(variable: str, key: str) -> bool:
    """Whether only training needs it: the state of an optimizer. key: of the variable in its checkpoint."""
    return bool(_TRAINING.fullmatch(variable)) or key.startswith("optimizer/") or ".OPTIMIZER_SLOT" in key


def hugging_face_name(variable: str, *, of_objects: bool) -> str:
    """The name in BertForPreTraining, or the variable's own where BERT has no such part.

    of_objects: the checkpoint is one of TensorFlow 2, whose programs may put a name of their own in front.
    """
    return _of_tf2(variable) if of_objects else _of_tf1(variable)


def _of_tf1(variable: str) -> str:
    for pattern, name in _TF1.items():
        if re.fullmatch(pattern, variable):
            return re.sub(pattern, name, variable)
    found = re.fullmatch(_MODULE, variable)
    if not found or not variable.startswith(("bert/", "cls/")):
        return variable
    module = found["module"].removeprefix("bert/").replace("/layer_", "/layer/").replace("/", ".")
    return f"{module}.{_PARTS[found['part']]}"


def _of_tf2(variable: str) -> str:
    for table, name in _TF2_TABLES.items():
        if variable == table or variable.endswith(f"/{table}"):
            return name
    found = re.fullmatch(_MODULE, variable)
    for pattern, name in _TF2_MODULES.items() if found else ():
        match = re.fullmatch(rf"(?:.*/)?{pattern}", found["module"]) if found else None
        if found and match:
            return f"{match.expand(name)}.{_PARTS[found['part']]}"
    return variable


def as_hugging_face(variable: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The value in Hugging Face's layout: heads side by side, kernels turned. What is no kernel stays as it is."""
    part = variable.rpartition("/")[2]
    if part == "bias":
        return value.reshape(-1)
    if part != "kernel" or value.ndim < 2 or value.size == 0:
        return value
    heads_first = variable.endswith("attention_output/kernel")
    flat = value.reshape(-1, value.shape[-1]) if heads_first else value.reshape(value.shape[0], -1)
    return flat.T
