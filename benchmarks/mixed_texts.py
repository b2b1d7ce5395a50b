"""Texts whose lengths spread as in service: a tenth abstracts, the rest passages."""

import json
import random

from benchmarks import corpora

COUNT = 1_500
_LEAST_WORDS = 3  # at least 5 tokens with the two special ones
_MOST_WORDS = 254
WORDS = ("river", "stone", "garden", "winter", "engine", "letter", "market", "window", "orange", "silver", "bridge")
"""Every one of them is one token."""


def choose(count: int = COUNT) -> list[str]:
    """Texts in random order, the same at every call: of the corpora where the environment names them, else made."""
    dice = random.Random(5)
    abstracts = count // 10
    if corpora.folder() is None:
        texts = [_make(dice, dice.normalvariate(160, 65)) for _ in range(abstracts)]
        texts += [_make(dice, dice.lognormvariate(3.3, 0.6)) for _ in range(count - abstracts)]
    else:
        lines = (corpora.require_folder() / "cranfield" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
        texts = dice.sample(_usable([json.loads(line)["text"] for line in lines]), abstracts)
        texts += dice.sample(_usable([row["text"] for row in corpora.passages(step=20)]), count - abstracts)
    dice.shuffle(texts)
    return texts


def _usable(texts: list[str]) -> list[str]:
    return [text for text in texts if len(text.split()) >= _LEAST_WORDS]


def _make(dice: random.Random, words: float) -> str:
    return " ".join(dice.choices(WORDS, k=min(_MOST_WORDS, max(_LEAST_WORDS, round(words)))))
