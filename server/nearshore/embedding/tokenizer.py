"""Text to token ids, with truncation and special tokens as the bundle says and never as the tokenizer file does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import tokenizers

from nearshore.bundle import CorruptBundleError, SpecialTokens

_GLANCE_CHARACTERS = 256  # of a text: its first word, no other shares a token with a prompt
_SLICE_CHARACTERS = 1 << 18  # of text given to the library at once: what it makes of a character takes some 40 bytes


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of one text."""

    ids: list[int]  # all of them, special tokens included, before truncation
    tokens_used: int  # how many the model takes

    @property
    def used_ids(self) -> list[int]:
        """What the model sees: the content is cut at the end, the closing special token stays."""
        if self.tokens_used == len(self.ids):
            return self.ids
        return [*self.ids[: self.tokens_used - 1], self.ids[-1]]

    def without_start(self, prompt_tokens: int) -> list[int]:
        """What the model sees instead where content is cut at the start, behind the opening token and the prompt's."""
        kept = min(1 + prompt_tokens, self.tokens_used - 1)  # the closing special token stays in any case
        return [*self.ids[:kept], *self.ids[kept + len(self.ids) - self.tokens_used :]]


TypedToken = tuple[int, int]
"""A token's id and its type."""


class PairFrame(NamedTuple):
    """What a tokenizer puts around and between the two texts of a pair."""

    before: list[TypedToken]
    query_type: int  # token type of the first text
    between: list[TypedToken]
    text_type: int  # token type of the second text
    behind: list[TypedToken]


class Tokenizer:
    """A Hugging Face tokenizer in one special-token mode. Thread-safe."""

    def __init__(self, path: Path, *, max_tokens: int, special: SpecialTokens) -> None:
        """Read tokenizer.json; max_tokens counts special tokens. Raises CorruptBundleError."""
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise CorruptBundleError(path.parent, f"{path.name} cannot be read ({error})") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = special is SpecialTokens.TEXT
        self._max_tokens = max_tokens
        self._path = path

    def copy(self, special: SpecialTokens) -> Tokenizer:
        """The same, in this special-token mode, not read again: the file may be another bundle's by now."""
        other = copy(self)
        other._tokenizer = deepcopy(self._tokenizer)
        other._tokenizer.encode_special_tokens = special is SpecialTokens.TEXT
        return other

    def encode(self, texts: Iterable[str]) -> Iterator[Tokens]:
        """Tokenize in this thread, some texts ahead of the caller, who decides what of each is kept in memory.

        1 MiB takes a third of a second, so long texts do not belong on an event loop. Other threads run meanwhile:
        encode_batch_fast, unlike encode, releases the GIL, and is three times as fast because it keeps no offsets.
        How the library truncates is not used, for it hides the full count.
        """
        for together in _slices(texts):
            for encoding in self._tokenizer.encode_batch_fast(together):
                ids: list[int] = encoding.ids
                yield Tokens(ids, min(len(ids), self._max_tokens))

    def count_prompt(self, prompt: str, text: str) -> int:
        """How many tokens a prompt has in front of this text, without the special one before it.

        A token in which both have a part is the prompt's; white space at its end is no part, for some tokenizers put it
        into the next word's token.
        """
        end = len(prompt.rstrip())
        glance = self._tokenizer.encode(prompt + text[:_GLANCE_CHARACTERS], add_special_tokens=False)
        return sum(start < end for start, _ in glance.offsets)

    def pair_frame(self) -> PairFrame:
        """How pairs are put together. Raises CorruptBundleError for a way that no export lets pass."""
        pair = self._tokenizer.encode("a", "a")
        tokens = zip(pair.sequence_ids, pair.ids, pair.type_ids, strict=True)
        parts = [(kind, [each[1:] for each in part]) for kind, part in groupby(tokens, lambda token: token[0])]
        if [kind for kind, _ in parts] != [None, 0, None, 1, None]:
            raise CorruptBundleError(self._path.parent, f"{self._path.name} puts no special tokens between two texts")
        before, query, between, text, behind = (part for _, part in parts)
        return PairFrame(before, query[0][1], between, text[0][1], behind)

    def spell(self, ids: Sequence[int]) -> list[str]:
        """The tokens as the vocabulary spells them; an id outside the vocabulary is empty."""
        return [self._tokenizer.id_to_token(token_id) or "" for token_id in ids]


def _slices(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in lists that end once they have _SLICE_CHARACTERS."""
    together: list[str] = []
    characters = 0
    for text in texts:
        together.append(text)
        characters += len(text)
        if characters >= _SLICE_CHARACTERS:
            yield together
            together, characters = [], 0
    if together:
        yield together
