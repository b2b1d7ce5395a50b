"""Texts whose lengths spread as in service: mostly passages, a tenth abstracts."""

import json
import random
from collections.abc import Sequence

from benchmarks import corpora
from nearshore.bundle import Bundle
from nearshore.embedding.tokenizer import Tokenizer

COUNT = 1_500
_ABSTRACTS = COUNT // 10
_WORDS = ("river", "stone", "garden", "winter", "engine", "letter", "market", "window", "orange", "silver", "bridge")


def choose(count: int = COUNT) -> list[str]:
    """Texts of the corpora where the environment names them, else made ones; the same at every call."""
    dice = random.Random(5)
    if corpora.folder() is None:
        return make(count)
    abstracts = (corpora.require_folder() / "cranfield" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in dice.sample(abstracts, _ABSTRACTS)]
    texts += [row["text"] for row in dice.sample(list(corpora.passages(step=20)), count - len(texts))]
    texts = [text for text in texts if text.strip()]
    dice.shuffle(texts)
    return texts


def make(count: int) -> list[str]:
    """Texts made of a few words, of 5 to 256 tokens; the same at every call."""
    dice = random.Random(5)
    lengths = [min(254, max(3, round(dice.lognormvariate(3.1, 0.8)))) for _ in range(count)]
    return [" ".join(dice.choices(_WORDS, k=length)) for length in lengths]


def token_counts(bundle: Bundle, texts: Sequence[str]) -> list[int]:
    """Tokens of each that are embedded."""
    manifest = bundle.manifest
    tokenizer = Tokenizer(bundle.tokenizer_path, max_tokens=manifest.max_tokens, special=manifest.special_tokens)
    return [len(one.used_ids) for one in tokenizer.encode(texts)]
