"""Resource names: "collections/{collection}" and "models/{model}" (AIP-122)."""

from __future__ import annotations

import re

from nearshore.documents.errors import InvalidNameError
from nearshore.model_names import RULE, is_model_name

COLLECTIONS = "collections/"
MODELS = "models/"
_COLLECTION_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ID_RULE = '1 to 63 of a-z, 0-9, "-" and "_", of which the first is a letter or digit.'


def collection_id(name: str, field: str) -> str:
    """The bare id in "collections/{collection}". Raises InvalidNameError naming `field`.

    A bad id is told without what stands before it: whoever uses the client or the command line did not write that.
    """
    bare = name.removeprefix(COLLECTIONS)
    if bare == name:
        raise InvalidNameError(
            f"{field} {name[:100]!r} is not the name of a collection.",
            f'Write "collections/" and then {_ID_RULE}',
            field=field,
        )
    check_collection_id(bare, field)
    return bare


def check_collection_id(bare: str, field: str) -> None:
    """Refuse an id that no collection can have. Raises InvalidNameError naming `field`."""
    if not _COLLECTION_ID.fullmatch(bare):
        raise InvalidNameError(
            f"{field} {bare[:100]!r} cannot be the id of a collection.", f"Write {_ID_RULE}", field=field
        )


def model_id(name: str, field: str) -> str:
    """The bare id in "models/{model}". Raises InvalidNameError naming `field`."""
    bare = name.removeprefix(MODELS)
    if bare == name:
        raise InvalidNameError(
            f"{field} {name[:100]!r} is not the name of a model.",
            f'Write "models/" and then {RULE}, as in "models/all-MiniLM-L6-v2".',
            field=field,
        )
    if not is_model_name(bare):
        raise InvalidNameError(
            f"{field} {bare[:100]!r} cannot be the id of a model.",
            f'Write {RULE}, as in "all-MiniLM-L6-v2".',
            field=field,
        )
    return bare


def collection_name(bare: str) -> str:
    """The resource name of a collection."""
    return COLLECTIONS + bare


def model_name(bare: str) -> str:
    """The resource name of a model; empty for no model."""
    return MODELS + bare if bare else ""
