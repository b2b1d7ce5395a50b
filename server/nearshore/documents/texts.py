"""Texts that belong to no document: embedded, scored against a query, or cut into tokens for the caller."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from nearshore.bundle import SpecialTokens
from nearshore.documents.errors import DimensionsError, EmptyTextError, LimitError, TextTooLargeError
from nearshore.documents.models import Models
from nearshore.documents.names import model_name
from nearshore.documents.sizes import size_bytes
from nearshore.documents.validate import check_batch_size, check_not_blank
from nearshore.documents.waiting import begun, in_thread, result_of
from nearshore.embedding import Embedder, Embeddings, Form, Scores, TokenClaim, TokenRoom, Truncation

# Below this many characters in all, tokenizing takes less time than handing it to a thread and back would.
_SHORT_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class EmbedAnswer:
    """EmbedResponse."""

    model: str  # "models/{model}"
    embeddings: Embeddings


@dataclass(frozen=True, slots=True)
class RerankAnswer:
    """RerankResponse."""

    model: str  # "models/{model}"
    results: Sequence[tuple[int, float, float]]  # index of a text, its score and its logit, best first
    tokens: Sequence[int]  # of each pair, in the order of the texts
    tokens_used: Sequence[int]


@dataclass(frozen=True, slots=True)
class TokenizeAnswer:
    """TokenizeResponse."""

    model: str  # "models/{model}"
    max_tokens: int
    max_document_tokens: int
    ids: Sequence[Sequence[int]]  # of each text, special tokens included, before truncation
    tokens: Sequence[Sequence[str]]  # the same, as the vocabulary spells them


class Texts:
    """Embeds, scores and tokenizes. Its methods are awaited on one event loop; blocking work runs in `executor`."""

    def __init__(
        self,
        models: Models,
        executor: Executor,
        *,
        max_texts: int,
        max_text_bytes: int,
        max_message_bytes: int,
        max_unread_s: float,
    ) -> None:
        """Decide with these; own none of them."""
        self._models = models
        self._executor = executor
        self._max_texts = max_texts
        self._max_text_bytes = max_text_bytes
        self._token_room = TokenRoom(max_message_bytes)
        self.max_unread_s = max_unread_s
        """How long an answer may keep that room once it is made."""

    def token_claim(self) -> TokenClaim:
        """Room for the vectors of one call's tokens, to be freed once it is answered, or left, or waits for long."""
        return self._token_room.claim()

    async def embed(  # noqa: PLR0913 -- each is a field of the request
        self,
        texts: Sequence[str],
        *,
        model: str,
        prompt: str | None,
        truncation: Truncation,
        form: Form,
        token_claim: TokenClaim | None,
        bulk: bool,
        deadline: float | None,
    ) -> EmbedAnswer:
        """Embed texts with "models/{model}", or the default where empty.

        prompt: as for Prompts.named; token_claim: of token_claim(), where vectors of tokens are wanted too; bulk: let
        others go first; deadline: time.monotonic() seconds. Raises BatchSizeError, TextTooLargeError, TextTooLongError,
        TokenVectorsTooLargeError, UnknownPromptError, DimensionsError, OverloadedError, DeadlineError, and what
        Models.lease does.
        """
        self._check(texts)
        with await self._models.lease(model, deadline) as lease:
            embedder = lease.embedder
            _check_dimensions(form, lease.name, embedder)
            submit = partial(
                embedder.submit,
                texts,
                prompt=embedder.prompts.named(prompt),
                form=form,
                truncation=truncation,
                token_claim=token_claim,
                bulk=bulk,
                deadline=deadline,
            )
            # The tokenizer of another mode may have to be made first.
            at_once = form.special is None and sum(map(len, texts)) <= _SHORT_CHARACTERS
            pending = await begun(self._executor, submit, deadline, at_once=at_once)
            return EmbedAnswer(model_name(lease.name), await result_of(pending, deadline, "embedding"))

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        model: str,
        limit: int | None,
        truncation: Truncation,
        deadline: float | None,
    ) -> RerankAnswer:
        """Score texts against a query with "models/{model}", or the default where empty.

        limit: answer the best so many; deadline: as for embed. Raises BatchSizeError, TextTooLargeError,
        EmptyTextError, LimitError, TextTooLongError, OverloadedError, DeadlineError, and what Models.lease_reranker
        does.
        """
        self._check(texts)
        self._check_size(query, "query")
        check_not_blank(query, "query")
        if limit is not None and limit < 1:
            raise LimitError(f"limit is {limit}.", "Ask for 1 or more, or leave it out for all.", field="limit")
        with await self._models.lease_reranker(model, deadline) as lease:
            submit = partial(lease.reranker.submit, query, texts, truncation=truncation, deadline=deadline)
            characters = (1 + len(texts)) * len(query) + sum(map(len, texts))  # the query is in each pair
            pending = await begun(self._executor, submit, deadline, at_once=characters <= _SHORT_CHARACTERS)
            scores = await result_of(pending, deadline, "scoring")
            if not scores.query_tokens:
                raise EmptyTextError(
                    "query has no characters that the model reads.", "Send text that has words in it.", field="query"
                )
            best = _ranked(scores)[:limit]
            return RerankAnswer(model_name(lease.name), best, scores.tokens, scores.tokens_used)

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str,
        prompt: str | None,
        special: SpecialTokens | None,
        deadline: float | None,
    ) -> TokenizeAnswer:
        """Cut texts into tokens as embed would. Together they may be as long as one alone: every token is answered.

        deadline: as for embed, while the model is loaded. Raises BatchSizeError, TextTooLargeError, UnknownPromptError,
        DeadlineError and what Models.lease does.
        """
        self._check(texts)
        together_bytes = sum(map(size_bytes, texts))
        if together_bytes > self._max_text_bytes:
            raise TextTooLargeError(
                f"texts have {together_bytes:,} bytes together.",
                f"One Tokenize call takes at most {self._max_text_bytes:,}: send fewer texts a call.",
                field="texts",
            )
        with await self._models.lease(model, deadline) as lease:
            embedder = lease.embedder
            before = embedder.prompts.named(prompt)
            ids, spelled = await in_thread(self._executor, partial(_tokenize, embedder, texts, before, special))
            name = model_name(lease.name)
            return TokenizeAnswer(name, embedder.max_tokens, embedder.max_document_tokens, ids, spelled)

    def _check(self, texts: Sequence[str]) -> None:
        check_batch_size(len(texts), self._max_texts, "texts")
        for index, text in enumerate(texts):
            self._check_size(text, f"texts[{index}]")

    def _check_size(self, text: str, field: str) -> None:
        if len(text) * 4 > self._max_text_bytes and size_bytes(text) > self._max_text_bytes:
            raise TextTooLargeError(
                f"{field} has {size_bytes(text):,} bytes.",
                f"At most {self._max_text_bytes:,} are allowed: split it.",
                field=field,
            )


def _ranked(scores: Scores) -> list[tuple[int, float, float]]:
    """Indexes, scores and logits, best first; by the logits, of which a sigmoid may make equal scores."""
    order = np.argsort(-scores.logits, kind="stable")
    return [(int(index), float(scores.scores[index]), float(scores.logits[index])) for index in order]


def _check_dimensions(form: Form, model: str, embedder: Embedder) -> None:
    if form.dimensions is not None and not 1 <= form.dimensions <= embedder.dimensions:
        raise DimensionsError(
            f"dimensions is {form.dimensions:,}; the vectors of the model {model!r} have {embedder.dimensions:,}.",
            f"Ask for 1 to {embedder.dimensions:,}, or leave dimensions out for all.",
            field="dimensions",
            value=form.dimensions,
            limit=embedder.dimensions,
        )


def _tokenize(
    embedder: Embedder, texts: Sequence[str], prompt: str, special: SpecialTokens | None
) -> tuple[list[list[int]], list[list[str]]]:
    ids = [list(tokens.ids) for tokens in embedder.tokenize(texts, special, prompt=prompt)]
    return ids, [embedder.spell(each) for each in ids]
