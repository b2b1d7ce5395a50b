"""Texts and pairs of texts as a network takes them: special tokens around them, cut and padded to one length.

For programs that run a bundle's graph themselves, as they would a TF Hub encoder; the service never pads, and puts its
pairs together as transformers does (see pairs). What comes out is what TF Hub's preprocessing (bert_pack_inputs in
tensorflow/models) gives for the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from nearshore.bundle import CorruptBundleError, SpecialTokens

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SpecialTable:
    """The numbers of special tokens, under TF Hub's names; None where the vocabulary has no such token."""

    vocab_size: int
    padding_id: int | None
    start_of_sequence_id: int
    end_of_segment_id: int
    mask_id: int | None


@dataclass(frozen=True, slots=True)
class Packed:
    """Inputs of a network, each (texts, length)."""

    ids: I64
    mask: I64  # 1 real, 0 padding
    types: I64  # 1 for what belongs to the second text of a pair


class Packer:
    """A bundle's tokenizer, for whole inputs. For one thread."""

    def __init__(self, path: Path, *, special: SpecialTokens) -> None:
        """Read tokenizer.json. Raises CorruptBundleError."""
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            start, end = self._tokenizer.encode("").ids
        except Exception as error:  # the library raises nothing narrower
            raise CorruptBundleError(path.parent, f"{path.name} cannot be used ({error})") from error
        self._tokenizer.encode_special_tokens = special is SpecialTokens.TEXT
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.table = SpecialTable(size, self._find("[PAD]", "<pad>"), start, end, self._find("[MASK]", "<mask>"))

    def pack(self, texts: Sequence[tuple[str] | tuple[str, str]], length: int) -> Packed:
        """Pack texts, or pairs, each to `length` tokens, special ones included.

        What is too long loses tokens at its ends; the texts of a pair take turns, so that the longer one loses first.
        Raises ValueError when there is no room for the special tokens.
        """
        ids, types = (np.zeros((len(texts), length), np.int64) for _ in range(2))
        ids += self.table.padding_id or 0
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            encoding = self._encode(text, length)
            count = len(encoding.ids)
            ids[row, :count], types[row, :count], mask[row, :count] = encoding.ids, encoding.type_ids, 1
        return Packed(ids, mask, types)

    def spell(self, ids: Sequence[int]) -> list[str]:
        """The tokens as the vocabulary spells them."""
        return [self._tokenizer.id_to_token(token) or "" for token in ids]

    def _encode(self, text: tuple[str] | tuple[str, str], length: int) -> Any:
        room = length - self._tokenizer.num_special_tokens_to_add(len(text) == 2)
        if room < 0:
            raise ValueError(f"{length} tokens leave no room for special tokens")
        encodings = [self._tokenizer.encode(part, add_special_tokens=False) for part in text]
        for encoding, kept in zip(encodings, _take_turns([len(each.ids) for each in encodings], room), strict=True):
            encoding.truncate(kept)
        return self._tokenizer.post_process(*encodings)

    def _find(self, *names: str) -> int | None:
        numbers = (self._tokenizer.token_to_id(name) for name in names)
        return next((number for number in numbers if number is not None), None)


def _take_turns(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens each text keeps when they take one after the other, the first text first."""
    kept = [0] * len(lengths)
    while room and kept != list(lengths):
        for text, length in enumerate(lengths):
            if room and kept[text] < length:
                kept[text] += 1
                room -= 1
    return kept
