"""What a model may be called: its bundle is a folder of that name, and the API names it. A leaf."""

from __future__ import annotations

import re
from typing import Final

MODEL_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""A regular expression for the whole name."""
RULE: Final = '1 to 128 of A-Z, a-z, 0-9, ".", "_" and "-", of which the first is a letter or digit'


def is_model_name(name: str) -> bool:
    """Whether a model can have this name."""
    return re.fullmatch(MODEL_NAME, name) is not None


def checked(name: str) -> str:
    """The name. Raises ValueError, with the rule, unless a model can have it."""
    if not is_model_name(name):
        raise ValueError(f"the name of a model is {RULE}")
    return name
