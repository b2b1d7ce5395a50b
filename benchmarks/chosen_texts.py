"""Texts to embed: mixed as in service, short ones alone, long ones alone.

The same at every call, of the corpora where the environment names them, else made of a few words.
"""

import json
import random
from functools import cache

from benchmarks import corpora

COUNT = 1_500
_LEAST_WORDS = 3  # at least 5 tokens with the two special ones
_SHORT_WORDS, _SHORT_CHARACTERS = 8, 50  # at most
_LONG_WORDS = 150  # at least
_MOST_WORDS = 254
_LONG_SHARE = 10  # of so many mixed texts one is long
WORDS = ("river", "stone", "garden", "winter", "engine", "letter", "market", "window", "orange", "silver", "bridge")
"""Every one of them is one token."""


def mixed(count: int = COUNT) -> list[str]:
    """Texts whose lengths spread as in service, in random order: a tenth abstracts, the rest passages."""
    dice = random.Random(5)
    abstracts = count // 10
    if corpora.folder() is None:
        texts = [_make(dice, dice.normalvariate(160, 65)) for _ in range(abstracts)]
        texts += [_make(dice, dice.lognormvariate(3.3, 0.6)) for _ in range(count - abstracts)]
    else:
        texts = dice.sample(_abstracts(), abstracts) + dice.sample(_passages(), count - abstracts)
    dice.shuffle(texts)
    return texts


def short(count: int = COUNT) -> list[str]:
    """Passages of 3 to 8 words and up to 50 characters, like queries."""
    dice = random.Random(6)
    if corpora.folder() is None:
        return [_make(dice, dice.uniform(_LEAST_WORDS, _SHORT_WORDS)) for _ in range(count)]
    return dice.sample([text for text in _passages() if _is_short(text)], count)


def long(count: int = COUNT // _LONG_SHARE) -> list[str]:
    """Abstracts of 150 words and more, most of which a model of 256 tokens has to cut."""
    dice = random.Random(7)
    if corpora.folder() is None:
        return [_make(dice, dice.uniform(_LONG_WORDS, _MOST_WORDS)) for _ in range(count)]
    return dice.sample([text for text in _abstracts() if len(text.split()) >= _LONG_WORDS], count)


def by_kind(count: int = COUNT) -> dict[str, list[str]]:
    """So many mixed texts, as many short ones, and a tenth as many long ones."""
    return {"mixed": mixed(count), "short": short(count), "long": long(max(1, count // _LONG_SHARE))}


def _is_short(text: str) -> bool:
    return len(text.split()) <= _SHORT_WORDS and len(text) <= _SHORT_CHARACTERS


@cache
def _abstracts() -> list[str]:
    lines = (corpora.require_folder() / "cranfield" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return _usable([json.loads(line)["text"] for line in lines])


@cache
def _passages() -> list[str]:
    return _usable([row["text"] for row in corpora.passages(step=20)])


def _usable(texts: list[str]) -> list[str]:
    return [text for text in texts if len(text.split()) >= _LEAST_WORDS]


def _make(dice: random.Random, words: float) -> str:
    return " ".join(dice.choices(WORDS, k=min(_MOST_WORDS, max(_LEAST_WORDS, round(words)))))
