"""How large the passages of an indexing run are: what was asked for, as far as the model and a passage allow it."""

from __future__ import annotations

from dataclasses import dataclass

import typer

PASSAGE_TOKENS, OVERLAP_TOKENS = 200, 32
"""By default, where the model takes so many."""


@dataclass(frozen=True, slots=True)
class PassageSizes:
    """What was asked for, in tokens of the model; None: the default, or less where that is too much."""

    passage_tokens: int | None
    overlap_tokens: int | None

    def fitted(self, document_tokens: int | None) -> tuple[int, int]:
        """Tokens of a passage, and of what the next one repeats of it.

        document_tokens: what the model takes of a document; None: it is not known yet. Raises typer.BadParameter for
        what was asked for and is too much: less would be other passages than meant.
        """
        passage, overlap = self.passage_tokens, self.overlap_tokens
        if passage is None:
            passage = PASSAGE_TOKENS if document_tokens is None else min(PASSAGE_TOKENS, document_tokens)
        elif document_tokens is not None and passage > document_tokens:
            problem = f"the model takes {document_tokens} tokens of a document: give no more, or leave it out"
            raise typer.BadParameter(problem, param_hint="--passage-tokens")
        half = passage // 2
        if overlap is None:
            return passage, min(OVERLAP_TOKENS, half)
        if overlap > half:
            problem = f"at most half of a passage is repeated, here {half} of {passage} tokens: give no more"
            raise typer.BadParameter(problem, param_hint="--overlap-tokens")
        return passage, overlap
