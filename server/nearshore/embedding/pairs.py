"""A query and a text into the one row of numbers that a cross-encoder reads.

A pair is queued and run as a text is, as a list of numbers. Each stands for a token and its type: the token's id, plus
the vocabulary's size where the type is 1. So all that the network sees of a pair is in that list: two pairs are the
same for the scheduler exactly when they are for the network, and nothing has to be found in the ids again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nearshore.bundle import Bundle
from nearshore.embedding.embeddings import Truncation
from nearshore.embedding.errors import TextTooLongError
from nearshore.embedding.tokenizer import Tokenizer

I64 = npt.NDArray[np.int64]


class CutPairs(NamedTuple):
    """The pairs of a call, in the order of their texts."""

    rows: list[list[int]]  # that are run
    tokens: list[int]  # of each pair before truncation, special ones included
    query_tokens: int  # without special ones


class PairCutter:
    """The tokenizer of a cross-encoder. Thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the bundle's tokenizer. Raises CorruptBundleError."""
        manifest = bundle.manifest
        self._max_tokens = manifest.max_tokens
        self._tokenizer = Tokenizer(
            bundle.tokenizer_path, max_tokens=manifest.max_tokens, special=manifest.special_tokens
        )
        frame = self._tokenizer.pair_frame()
        typed = manifest.network.token_types > 1  # else the network looks at no types
        step = manifest.network.vocabulary_size if typed else 0
        self._before, self._between, self._behind = (
            [token + step * kind for token, kind in tokens] for tokens in (frame.before, frame.between, frame.behind)
        )
        self._query_step, self._text_step = step * frame.query_type, step * frame.text_type
        self._special = len(self._before) + len(self._between) + len(self._behind)

    def cut(
        self, query: str, texts: Sequence[str], *, truncation: Truncation, check_room: Callable[[int], None]
    ) -> CutPairs:
        """The rows of a query with each text.

        check_room: as for Cutter.cut. Raises TextTooLongError (with Truncation.REFUSE).
        """
        check_room(self._special * len(texts))
        room = self._max_tokens - self._special
        (whole,) = self._tokenizer.encode([query])
        query_tokens = len(whole.ids) - 2
        head = [token + self._query_step for token in whole.ids[1 : 1 + min(query_tokens, room)]]
        del whole  # of a long query it is large
        cut = CutPairs([], [], query_tokens)
        shortest = self._special + min(query_tokens, room // 2)
        least = shortest * len(texts)
        check_room(least)
        for index, text in enumerate(self._tokenizer.encode(texts)):
            text_tokens = len(text.ids) - 2
            tokens = self._special + query_tokens + text_tokens
            if truncation is Truncation.REFUSE and tokens > self._max_tokens:
                raise TextTooLongError(index, tokens, self._max_tokens, beside="the query")
            of_query, of_text = shares(query_tokens, text_tokens, room)
            start = 1 + (text_tokens - of_text if truncation is Truncation.CUT_START else 0)
            tail = [token + self._text_step for token in text.ids[start : start + of_text]]
            cut.rows.append([*self._before, *head[:of_query], *self._between, *tail, *self._behind])
            cut.tokens.append(tokens)
            least += len(cut.rows[-1]) - shortest
            check_room(least)
        return cut


def shares(query_tokens: int, text_tokens: int, room: int) -> tuple[int, int]:
    """How many tokens a query and a text keep of so many where both have room for `room`.

    As in transformers (longest_first): the longer one is cut first, and neither below half of the room.
    """
    if query_tokens + text_tokens <= room:
        return query_tokens, text_tokens
    shorter = min(query_tokens, text_tokens)
    if 2 * shorter <= room:
        longer = room - shorter
    else:
        shorter = room // 2
        longer = room - shorter
    return (shorter, longer) if query_tokens <= text_tokens else (longer, shorter)


def unfold(rows: Sequence[Sequence[int]], vocabulary_size: int) -> tuple[I64, I64]:
    """Token ids and types, each (B, T), of B rows of T numbers as PairCutter makes them."""
    types, ids = np.divmod(np.array(rows, np.int64), vocabulary_size)
    return ids, types
