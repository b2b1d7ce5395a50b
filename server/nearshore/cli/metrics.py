"""How good a ranking is, as trec_eval defines it (nDCG with linear gain), to compare with published figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Judgements = Mapping[str, int]
"""Relevance of documents to one query, by document id; 0 and less: judged, not relevant."""


def ndcg(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Normalized discounted cumulative gain of the first k (Järvelin and Kekäläinen, 2002; gain = relevance).

    0 to 1; 0 where no document is relevant.
    """
    gains = [max(judgements.get(document_id, 0), 0) for document_id in ranking[:k]]
    best = sorted((max(relevance, 0) for relevance in judgements.values()), reverse=True)[:k]
    ideal = _discounted(best)
    return _discounted(gains) / ideal if ideal else 0.0


def recall(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Share of the relevant documents that are among the first k; 0 where none is relevant."""
    relevant = _relevant(judgements)
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """1 / rank of the first relevant document among the first k; 0 where there is none."""
    relevant = _relevant(judgements)
    return next((1 / rank for rank, found in enumerate(ranking[:k], 1) if found in relevant), 0.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """Averages over the judged queries."""

    queries: int
    ndcg_at_10: float
    recall_at: Mapping[int, float]
    mrr_at_10: float


def average(
    rankings: Mapping[str, Sequence[str]], judged: Mapping[str, Judgements], *, recall_at: Sequence[int]
) -> Figures:
    """Average over the queries that have both a ranking and judgements; the others are left out.

    rankings: document ids by query id, best first. All figures are 0 where no query is judged.
    """
    both = [(ranking, judged[query_id]) for query_id, ranking in rankings.items() if query_id in judged]
    count = max(len(both), 1)
    return Figures(
        queries=len(both),
        ndcg_at_10=math.fsum(ndcg(ranking, judgements, 10) for ranking, judgements in both) / count,
        recall_at={
            k: math.fsum(recall(ranking, judgements, k) for ranking, judgements in both) / count for k in recall_at
        },
        mrr_at_10=math.fsum(reciprocal_rank(ranking, judgements, 10) for ranking, judgements in both) / count,
    )


def _relevant(judgements: Judgements) -> set[str]:
    return {document_id for document_id, relevance in judgements.items() if relevance > 0}


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
