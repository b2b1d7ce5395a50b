"""Texts into the token ids that one model embeds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from nearshore.bundle import Bundle, SpecialTokens
from nearshore.embedding.embeddings import Truncation
from nearshore.embedding.errors import TextTooLongError
from nearshore.embedding.tokenizer import Tokenizer, Tokens

_LEAST_TOKENS = 2  # of an empty text: [CLS] and [SEP]


class Cut(NamedTuple):
    """The texts of a call, in their order."""

    ids: list[list[int]]  # that are embedded
    tokens: list[int]  # how many there are before truncation


class Cutter:
    """The tokenizers of one bundle, one for each way to read special tokens. Thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the bundle's tokenizer. Raises CorruptBundleError."""
        self._max_tokens = bundle.manifest.max_tokens
        self._usual = bundle.manifest.special_tokens
        usual = Tokenizer(bundle.tokenizer_path, max_tokens=self._max_tokens, special=self._usual)
        # The other one when it is asked for, which is seldom: making one holds up all threads, for a quarter of a
        # second where there are 250,000 tokens.
        self._tokenizers = {self._usual: usual}
        self._making = threading.Lock()
        self._around: dict[str, int] = {}  # tokens_around, of the prompts that were asked for

    def tokenizer(self, special: SpecialTokens | None = None) -> Tokenizer:
        """The one that reads special tokens so; None: as the bundle says. That of the other mode is made once."""
        wanted = self._usual if special is None else special
        found = self._tokenizers.get(wanted)
        if found is not None:
            return found
        with self._making:
            if wanted not in self._tokenizers:
                self._tokenizers[wanted] = self._tokenizers[self._usual].copy(wanted)
            return self._tokenizers[wanted]

    def tokenize(self, texts: Iterable[str], special: SpecialTokens | None, prompt: str) -> Iterator[Tokens]:
        """Cut texts as the caller takes them; prompt: put before each as it is."""
        return self.tokenizer(special).encode(prompt + text for text in texts)

    def tokens_around(self, prompt: str) -> int:
        """Tokens of an empty text behind this prompt, one of the model's or none."""
        known = self._around.get(prompt)
        if known is None:
            (around,) = self.tokenize([""], None, prompt)
            known = self._around[prompt] = len(around.ids)
        return known

    def cut(
        self,
        texts: Sequence[str],
        *,
        prompt: str,
        special: SpecialTokens | None,
        truncation: Truncation,
        check_room: Callable[[int], None],
    ) -> Cut:
        """The ids that are embedded of each text. Raises TextTooLongError (with Truncation.REFUSE).

        check_room: raises when there is no room for so many tokens. Gives up as soon as the call cannot fit: an
        overloaded server has no time and no memory to tokenize in vain.
        """
        cut = Cut([], [])
        least = _LEAST_TOKENS * len(texts)  # of the whole call, as far as it is known
        check_room(least)
        for index, tokens in enumerate(self.tokenize(texts, special, prompt)):
            count = len(tokens.ids)
            if truncation is Truncation.REFUSE and count > self._max_tokens:
                raise TextTooLongError(index, count, self._max_tokens)
            if truncation is Truncation.CUT_START and count > self._max_tokens:
                cut.ids.append(tokens.without_start(self.tokenizer(special).count_prompt(prompt, texts[index])))
            else:
                cut.ids.append(tokens.used_ids)
            cut.tokens.append(count)
            least += tokens.tokens_used - _LEAST_TOKENS
            check_room(least)
        return cut
