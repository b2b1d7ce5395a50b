"""Reads a checkpoint's tokenizer.json and frees it of truncation and padding, which belong to the bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import tokenizers

from nearshore.bundle import content_digest
from nearshore.export.checkpoint import Checkpoint
from nearshore.export.config import read_json
from nearshore.export.errors import UnusableCheckpointError

_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class PlainTokenizer:
    """A tokenizer that neither truncates nor pads."""

    text: str  # the content of tokenizer.json
    sha256: str  # of its content, whatever its spelling


def read_tokenizer(checkpoint: Checkpoint) -> PlainTokenizer:
    """Read, free and check the tokenizer. Raises UnusableCheckpointError."""
    content = read_json(checkpoint.folder, _FILE)
    content["truncation"] = None
    content["padding"] = None
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    try:
        tokenizer: Any = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises nothing more precise
        raise UnusableCheckpointError(checkpoint.folder, f"{_FILE} is not a tokenizer ({error})") from error
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    size = checkpoint.configuration.network.vocabulary_size
    if highest >= size:
        raise UnusableCheckpointError(
            checkpoint.folder, f"{_FILE} has token number {highest}, the network only {size} tokens"
        )
    if len(tokenizer.encode("").ids) != 2:
        raise UnusableCheckpointError(
            checkpoint.folder, f"{_FILE} does not put two special tokens, as [CLS] and [SEP], around a text"
        )
    return PlainTokenizer(text, content_digest(content))
