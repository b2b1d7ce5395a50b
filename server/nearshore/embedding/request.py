"""Texts that one caller sent together, and the future that answers them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

import numpy as np

from nearshore.records import F32

TokenIds = Sequence[int]
Embed = Callable[[Sequence[TokenIds]], tuple[F32, F32]]
"""A model: embeds B texts of T tokens each to (B, dimensions), the tokens to (B, T, hidden size). Several threads
call it. To a cross-encoder a pair is a text, and its vector is the pair's logit (see pairs)."""
KeepTokens = Callable[[int, F32], object]
"""Given a text's position among those of its request, and the vectors of its tokens, (tokens, hidden size)."""


def key_of(ids: TokenIds) -> bytes:
    """The same bytes for the same token ids, and for no others."""
    return array("i", ids).tobytes()


class Request:
    """Answered when the last of its texts is embedded. Its future stays pending until then, so it can be cancelled."""

    def __init__(  # noqa: PLR0913 -- what the caller said of the texts
        self,
        texts: Sequence[TokenIds],
        *,
        embed: Embed,
        answer: Callable[[F32], Any],
        keep_tokens: KeepTokens | None = None,
        bulk: bool = False,
        deadline: float | None = None,
        queued_at: float = 0.0,
        share: bool = True,
    ) -> None:
        """texts: at least one; embed: their model; answer: makes the future's result of (texts, dimensions).

        keep_tokens: is given the vectors of tokens as they come, by several threads at once; deadline and queued_at:
        seconds on the scheduler's clock; share: have identical texts embedded once, unless their tokens are kept.
        """
        alone = not share or keep_tokens is not None
        keys: Sequence[Hashable] = [object() if alone else (embed, key_of(ids)) for ids in texts]
        distinct = dict(zip(keys, texts, strict=True))
        self.keys = list(distinct)
        """Of each distinct text; texts of equal keys, of whatever request, are of one model and embedded together."""
        self.texts = list(distinct.values())
        numbers = {key: number for number, key in enumerate(self.keys)}
        self._order = [numbers[key] for key in keys]  # of each text: which distinct one it is
        self.tokens = sum(map(len, texts))
        """Of all texts, repeated ones too."""
        self.embed = embed
        self.bulk = bulk
        self.deadline = deadline
        self.queued_at = queued_at
        self.future: Future[Any] = Future()
        self._answer = answer
        self._keep_tokens = keep_tokens
        self._vectors: dict[int, F32] = {}

    def keep(self, position: int, tokens: F32) -> None:
        """Pass on the vectors (tokens, hidden size) of one text's tokens, where they are asked for."""
        if self._keep_tokens is not None:
            self._keep_tokens(position, tokens.copy())  # else the whole run would stay in memory

    def put(self, position: int, vector: F32) -> bool:
        """Keep the vector (dimensions,) of one distinct text; returns whether it was the last. Not thread-safe."""
        self._vectors[position] = vector
        return len(self._vectors) == len(self.texts)

    def finish(self) -> None:
        """Answer the caller, unless it has left or was told of an error."""
        if self.future.done():
            return
        try:
            result = self._answer(np.stack([self._vectors[position] for position in self._order]))
        except Exception as error:
            self.fail(error)
            return
        with suppress(InvalidStateError):  # it left just now
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Tell the caller what went wrong, unless it has left or was told already."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)
