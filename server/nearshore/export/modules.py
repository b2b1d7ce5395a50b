"""What sentence-transformers does with the vectors of the tokens: modules.json and the folders that it names.

The order is fixed: Transformer, Pooling, any number of Dense and, if it is there, Normalize. Without modules.json the
default of sentence-transformers for plain encoders holds: mean pooling, not normalized.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearshore.bundle import DenseLayer, Pooling
from nearshore.export.config import read_json
from nearshore.export.dense import read_dense
from nearshore.export.errors import UnusableCheckpointError

MODULES_FILE = "modules.json"
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
_ORDER = re.compile("Transformer Pooling( Dense)*( Normalize)?")
_NAMES = {
    "cls": Pooling.CLS,
    "max": Pooling.MAX,
    "mean": Pooling.MEAN,
    "mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "weightedmean": Pooling.WEIGHTED_MEAN,
    "lasttoken": Pooling.LAST,
}
# One switch a kind, as sentence-transformers wrote until version 5; in the order of their vectors.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_LIBRARY = "sentence_transformers."
_MEAN = "pooling_mode_mean_tokens"


@dataclass(frozen=True, slots=True)
class Modules:
    """What makes one vector of a text's tokens."""

    pooling: tuple[Pooling, ...]  # side by side
    dense: tuple[DenseLayer, ...]  # one after the other
    normalize: bool
    dimensions: int  # of the vector
    stated: bool = True  # by the checkpoint; else it is the default


def read_modules(folder: Path, width: int, *, prompted: bool, classifies: bool = False) -> Modules:
    """Read what follows a network of this width; prompted: anything is put before a text.

    classifies: it is a classifier's, for which sentence-transformers may name its transformer alone. Raises
    UnusableCheckpointError for what is not supported.
    """
    default = Modules((Pooling.MEAN,), (), normalize=False, dimensions=width, stated=False)
    if not (folder / MODULES_FILE).exists():
        return default
    modules = read_json(folder, MODULES_FILE, kind=list)
    kinds = [_kind(folder, module) for module in modules]
    if classifies and kinds == ["Transformer"] and not modules[0].get("path"):
        return default
    if kinds[:1] == ["Transformer"] and modules[0].get("path"):
        raise UnusableCheckpointError(folder, f"its transformer lies in {modules[0]['path']!r}, export that")
    if not _ORDER.fullmatch(" ".join(kinds)):
        raise UnusableCheckpointError(
            folder,
            f"{MODULES_FILE} has {', '.join(kinds) or 'nothing'}; supported is Transformer, Pooling, any number of "
            "Dense, and Normalize or none, in this order",
        )
    pooling = _read_pooling(folder, f"{_path(folder, modules[1])}/config.json", prompted=prompted)
    dense: list[DenseLayer] = []
    dimensions = len(pooling) * width
    for module in modules[2 : 2 + kinds.count("Dense")]:
        dense.append(read_dense(folder, _path(folder, module), dimensions))
        dimensions = len(dense[-1].bias)
    return Modules(pooling, tuple(dense), normalize="Normalize" in kinds, dimensions=dimensions)


def _kind(folder: Path, module: Any) -> str:
    """The last part of a module's type: releases have moved the classes about. A checkpoint's own class is another."""
    stated = module.get("type") if isinstance(module, dict) else module
    kind = str(stated).rpartition(".")[2]
    if kind not in _KINDS or not isinstance(module, dict) or not str(stated).startswith(_LIBRARY):
        raise UnusableCheckpointError(folder, f"{MODULES_FILE} asks for {stated}, which is not supported")
    return kind


def _path(folder: Path, module: dict[str, Any]) -> str:
    """The folder of a module, inside the checkpoint's."""
    path = module.get("path")
    if not isinstance(path, str) or not path or Path(path).is_absolute() or {"..", "."} & set(path.split("/")):
        raise UnusableCheckpointError(folder, f"{MODULES_FILE} has a module at {path!r}, which is no folder inside it")
    return path


def _read_pooling(folder: Path, file: str, *, prompted: bool) -> tuple[Pooling, ...]:
    config = read_json(folder, file)
    if prompted and config.get("include_prompt", True) is not True:
        raise UnusableCheckpointError(
            folder,
            f"{file} leaves prompts out of pooling (include_prompt), which is not supported",
            "Use a checkpoint whose pooling includes them.",
        )
    modes = config.get("pooling_mode")  # newer versions write this, and it has precedence
    if modes is None:
        if not isinstance(config.get(_MEAN), bool):  # sentence-transformers takes it for on where it is absent
            raise UnusableCheckpointError(folder, f"{file} has neither pooling_mode nor true or false for {_MEAN}")
        modes = [_SWITCHES.get(key, key) for key in _switched_on(config)]
    modes = [modes] if isinstance(modes, str) else modes
    known = [_NAMES[str(mode)] for mode in modes if str(mode) in _NAMES] if isinstance(modes, list) else []
    if not known or len(known) != len(modes):
        raise UnusableCheckpointError(folder, f"{file} asks for {modes}, supported are {', '.join(_NAMES)}")
    return tuple(known)


def _switched_on(config: dict[str, Any]) -> list[str]:
    """The switches that are on; last those that nobody knows."""
    unknown = [key for key in config if key not in _SWITCHES and key != "include_prompt"]
    return [key for key in (*_SWITCHES, *unknown) if config.get(key) is True]
