"""What is fetched of a checkpoint that nearshore knows by name, and that it could not be."""

from __future__ import annotations

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
