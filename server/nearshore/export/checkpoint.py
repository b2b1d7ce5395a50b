"""Reads what the files of a checkpoint folder say about its use, and refuses what would be used wrongly.

The layout is that of Hugging Face or sentence-transformers. Files: config.json and weights (the network, see
`config` and `weights`), tokenizer.json and tokenizer_config.json; from sentence-transformers, where present,
modules.json (see `modules`), sentence_bert_config.json (or an older name) and config_sentence_transformers.json (see
`prompts`); README.md for the licence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearshore.export.catalogue import SENTENCE_FILES
from nearshore.export.config import Configuration, read_configuration, read_json
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.modules import MODULES_FILE, Modules, read_modules
from nearshore.export.prompts import CheckpointPrompts, read_prompts
from nearshore.export.sources import CheckpointFiles, find_files
from nearshore.network import Network


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the configuration files of a checkpoint say, checked."""

    folder: Path
    files: CheckpointFiles
    configuration: Configuration
    max_tokens: int
    modules: Modules
    prompts: CheckpointPrompts
    bare: bool  # a classifier without modules.json, of which sentence-transformers heeds no file of its own
    license: str


def read_checkpoint(folder: Path, *, for_tfhub: bool = False) -> Checkpoint:
    """Read and check all but tensors and tokenizer. Raises UnusableCheckpointError naming what is missing.

    for_tfhub: as for find_files.
    """
    files = find_files(folder, for_tfhub=for_tfhub)
    configuration = read_configuration(files.config)
    width, classifies = configuration.network.hidden_size, configuration.classifies
    bare = classifies and not (folder / MODULES_FILE).exists()
    prompts = CheckpointPrompts() if bare else read_prompts(folder)
    modules = read_modules(folder, width, prompted=bool(prompts.texts), classifies=classifies)
    settings = {} if bare else _read_sentence_settings(folder)
    max_tokens = _read_max_tokens(folder, settings, configuration.network)
    return Checkpoint(folder, files, configuration, max_tokens, modules, prompts, bare, _read_license(folder))


def _read_max_tokens(folder: Path, settings: Mapping[str, Any], network: Network) -> int:
    longest = network.longest_text
    tokenizer = read_json(folder, "tokenizer_config.json", optional=True)
    if tokenizer.get("truncation_side", "right") != "right":
        raise UnusableCheckpointError(folder, "tokenizer_config.json truncates on the left, which is not supported")
    limit = settings.get("max_seq_length")
    if limit is None:
        stated = tokenizer.get("model_max_length") or longest
        limit = int(min(stated, longest)) if isinstance(stated, int | float) else stated
    if not isinstance(limit, int) or not 2 <= limit <= longest:
        raise UnusableCheckpointError(folder, f"max_seq_length is {limit!r}, not 2 to {longest} positions")
    return limit


def _read_sentence_settings(folder: Path) -> dict[str, Any]:
    """What sentence-transformers says about its transformer; empty where it says nothing.

    Refuses what would change a text in another way than prompts before the tokenizer sees it.
    """
    file = next((name for name in SENTENCE_FILES if (folder / name).exists()), SENTENCE_FILES[0])
    settings: dict[str, Any] = read_json(folder, file, optional=True)
    if settings.get("do_lower_case"):
        raise UnusableCheckpointError(folder, f"{file} asks for do_lower_case, not supported")
    return settings


def _read_license(folder: Path) -> str:
    """The `license:` of the model card's front matter."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = re.match(r"---\n(?:.*\n)*?license:[ \t]*(\S+)", text)
    return found.group(1).strip("'\"") if found else "unknown"
