"""Reads what sentence-transformers puts before texts: config_sentence_transformers.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from nearshore.bundle import DOCUMENT_PROMPTS, QUERY_PROMPTS
from nearshore.export.config import read_json
from nearshore.export.errors import UnusableCheckpointError

_FILE = "config_sentence_transformers.json"
_USES = (*QUERY_PROMPTS, *DOCUMENT_PROMPTS)


@dataclass(frozen=True, slots=True)
class CheckpointPrompts:
    """Prompts by name, less the empty ones that change nothing.

    An empty one of queries or documents is in place of the default, or of the next name for documents, so it stays
    where there is any that is not empty.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None  # the name of that which is used when none is asked for

    def check_room(self, folder: Path, tokenizer: str, max_tokens: int) -> None:
        """Raise UnusableCheckpointError for a prompt that leaves no room for text; tokenizer: as tokenizer.json."""
        counter = tokenizers.Tokenizer.from_str(tokenizer)
        counter.no_truncation()
        counter.no_padding()
        for name, text in self.texts.items():
            count = len(counter.encode(text).ids)
            if count >= max_tokens:
                detail = f"{_FILE}: the prompt {name!r} has {count} tokens, and the model takes {max_tokens} in all"
                raise UnusableCheckpointError(folder, detail)


def read_prompts(folder: Path) -> CheckpointPrompts:
    """Read and check them. Raises UnusableCheckpointError."""
    config = read_json(folder, _FILE, optional=True)
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(name and _is_text(text) for name, text in prompts.items()):
        raise UnusableCheckpointError(folder, f"{_FILE}: prompts are not texts by name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise UnusableCheckpointError(folder, f"{_FILE}: default_prompt_name {default!r} is none of its prompts")
    if not any(prompts.values()):
        return CheckpointPrompts()
    texts = {name: text for name, text in prompts.items() if text or name in _USES}
    return CheckpointPrompts(texts, default if texts.get(default) else None)


def _is_text(value: object) -> bool:
    """Half a surrogate pair, which JSON can spell, is none."""
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value
