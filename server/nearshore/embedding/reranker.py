"""A query and texts in, scores out: tokenizer, scheduler and session of one cross-encoder behind one object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from nearshore.bundle import Bundle
from nearshore.embedding.embeddings import Truncation
from nearshore.embedding.golden import check_golden_pairs
from nearshore.embedding.pairs import CutPairs, PairCutter
from nearshore.embedding.session import Session
from nearshore.embedding.workplace import Workplace
from nearshore.records import F32


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """How well each text answers the query, in the order of the texts."""

    logits: F32  # (texts,)
    scores: F32  # (texts,), the logits behind the model's activation
    tokens: list[int]  # of each pair before truncation, special tokens included
    tokens_used: list[int]  # of those, how many were read
    query_tokens: int  # without special ones, before truncation


class Reranker:
    """One cross-encoder, ready to score. Thread-safe.

    A pair has the same score, bit for bit, whoever it shares a call, a run or the machine with.
    """

    def __init__(self, bundle: Bundle, cutter: PairCutter, session: Session, workplace: Workplace) -> None:
        """Use load()."""
        self.bundle = bundle
        self._cutter = cutter
        self._session = session
        self._workplace = workplace
        self._fingerprint = bundle.fingerprint_for(bundle.manifest.special_tokens)

    @classmethod
    def load(cls, bundle: Bundle, workplace: Workplace) -> Self:
        """Load the bundle of a cross-encoder and check that it gives its golden scores; the workplace is the caller's.

        Raises ModelMismatchError, CorruptBundleError.
        """
        cutter, session = PairCutter(bundle), Session(bundle)
        check_golden_pairs(bundle, cutter, session)
        return cls(bundle, cutter, session, workplace)

    def fingerprint(self) -> str:
        """What its scores mean."""
        return self._fingerprint

    def submit(
        self,
        query: str,
        texts: Sequence[str],
        *,
        truncation: Truncation = Truncation.CUT_END,
        deadline: float | None = None,
    ) -> Future[Scores]:
        """Tokenize in this thread, queue the pairs (at least one), and return without waiting for the model.

        truncation: CUT_END cuts the longer of query and text at its end until the pair fits, as sentence-transformers
        does; CUT_START cuts texts at their start instead. Scores are not kept where vectors are: pairs seldom come
        again, and are many. deadline, what is raised, and what the future can fail with are as for Embedder.submit.
        """
        check_room = partial(self._workplace.scheduler.check_room, deadline=deadline)
        cut = self._cutter.cut(query, texts, truncation=truncation, check_room=check_room)
        return self._workplace.scheduler.submit(
            cut.rows,
            embed=self._session.score,
            answer=lambda logits: self._scores(cut, logits[:, 0]),
            deadline=deadline,
            share=self._workplace.share_in_flight,
        )

    def close(self) -> None:
        """Nothing: the workplace is the caller's."""

    def _scores(self, cut: CutPairs, logits: F32) -> Scores:
        classifier = self.bundle.manifest.classifier
        scores = logits
        if classifier is not None and classifier.activation == "sigmoid":
            scores = np.array([_sigmoid(logit) for logit in logits.tolist()], np.float32)
        return Scores(logits, scores, cut.tokens, list(map(len, cut.rows)), cut.query_tokens)


def _sigmoid(logit: float) -> float:
    """One number at a time: NumPy takes several at once, and rounds those that are left over in another way."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1 + power)
