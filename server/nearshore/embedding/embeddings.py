"""What a caller asks of long texts, and what it gets for all of them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from nearshore.records import F32


class Truncation(enum.StrEnum):
    """What to do with a text that has more tokens than the model takes."""

    CUT_END = "cut_end"
    CUT_START = "cut_start"  # behind the prompt
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """What the network gives for each token of one text, before pooling and what follows it."""

    ids: Sequence[int]  # of the tokens that were embedded, special ones included
    vectors: F32  # (len(ids), hidden size)
    fingerprint: str  # what they mean; never that of vectors of texts


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Vectors and what they were made of, in the order of the texts."""

    vectors: F32  # (texts, dimensions), in the form that was asked for
    tokens: list[int]  # of each text before truncation, special tokens included
    tokens_used: list[int]  # of those, how many were embedded
    fingerprint: str  # what the vectors mean
    token_vectors: Sequence[TokenVectors] = ()  # of each text, where they were asked for
