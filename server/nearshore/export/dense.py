"""Reads a module Dense of sentence-transformers: config.json and weights in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from nearshore.bundle import DenseActivation, DenseLayer
from nearshore.export.config import ConfigFile, read_json
from nearshore.export.layout import Shape
from nearshore.export.shards import ShardStore
from nearshore.export.weights import Weights

_WEIGHT, _BIAS = "linear.weight", "linear.bias"
_ACTIVATIONS: Mapping[str, DenseActivation] = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu"}  # in torch.nn
_SIZES = ("in_features", "out_features")
# Further settings: the values that are done, of which the first is what holds where it is absent.
_DONE: Final[Mapping[str, tuple[object, ...]]] = {
    "bias": (True, False),
    "activation_function": ("torch.nn.modules.activation.Tanh",),  # any of torch, by its last name
    "module_input_name": ("sentence_embedding",),
    "module_output_name": (None, "sentence_embedding"),
    "use_residual": (False,),
}


def read_dense(folder: Path, module: str, inputs: int) -> DenseLayer:
    """The layer in the folder `module` of a checkpoint, for vectors of `inputs`. Raises UnusableCheckpointError."""
    config = ConfigFile(folder, f"{module}/config.json", read_json(folder, f"{module}/config.json"))
    activation = _check(config, inputs)
    outputs = config.get("out_features")
    shapes: dict[str, Shape] = {_WEIGHT: (outputs, inputs)}
    if config.get("bias", True):
        shapes[_BIAS] = (outputs,)
    store = ShardStore(folder / module, prefix="")
    weights = Weights(folder / module, store)
    weights.check(shapes)
    weights.refuse_others(shapes, owner="Dense")
    bias = weights.read(_BIAS) if _BIAS in shapes else np.zeros(outputs, np.float32)
    return DenseLayer(weights.read(_WEIGHT), bias, activation)


def _check(config: ConfigFile, inputs: int) -> DenseActivation:
    for key in config.values:
        if key not in {*_SIZES, *_DONE}:
            raise config.refusal(f"has {key}, which is not supported")
    for key in _SIZES:
        size: Any = config.get(key)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise config.refusal(f"has {key} {size!r}, not a number of components")
    if config.get("in_features") != inputs:
        raise config.refusal(f"has in_features {config.get('in_features')}, and what comes before it gives {inputs}")
    for key, done in _DONE.items():
        value = config.get(key, done[0])
        if key != "activation_function" and value not in done:
            raise config.refusal(f"has {key} {value!r}, which is not supported")
    name = str(config.get("activation_function", *_DONE["activation_function"]))
    activation = _ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.") else None
    if activation is None:
        raise config.refusal(f"has activation_function {name!r}, supported are {', '.join(_ACTIVATIONS)} of torch.nn")
    return activation
