"""What eight bits cost: the vectors, what people judged similar, and retrieval, each in both precisions."""

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import bundles, corpora, retrieval
from nearshore.bundle import Bundle, Precision, SpecialTokens, cosines
from nearshore.embedding import Form
from nearshore.records import F32

F64 = npt.NDArray[np.float64]


def compare() -> dict[str, Any]:
    """Figures of each precision, and what int8 loses of nDCG@10."""
    bundle = bundles.with_int8()
    figures = {precision.value: _measure(bundle.at(precision)) for precision in Precision}
    before, after = (figures[precision]["ndcg@10"] for precision in ("fp32", "int8"))
    return {**figures, "ndcg@10_lost": {corpus: before[corpus] - after[corpus] for corpus in before}}


def _measure(bundle: Bundle) -> dict[str, Any]:
    environment = {"NEARSHORE_EMBEDDING__PRECISION": bundle.precision.value}
    found = reference_cosines(bundle)
    return {
        "reference_mean_cosine": float(found.mean()),
        "reference_minimum_cosine": float(found.min()),
        "sts_dev_spearman_x100": 100 * sts_spearman(bundle),
        "ndcg@10": {
            corpus: retrieval.evaluate(corpus, environment=environment)["ndcg@10"] for corpus in retrieval.JUDGED
        },
    }


def reference_cosines(bundle: Bundle) -> F64:
    """Of each reference text, to the vector of sentence-transformers, which reads "[SEP]" in a text as that token."""
    reference = corpora.reference()
    return cosines(_embed(bundle, reference.texts, SpecialTokens.PARSE), reference.vectors)


def sts_spearman(bundle: Bundle) -> float:
    """Rank correlation of cosines with the judgements of the STS benchmark's development set."""
    scores, first, second = corpora.similar_sentences()
    vectors = _embed(bundle, first + second)
    found = cosines(vectors[: len(first)], vectors[len(first) :])
    return float(np.corrcoef(_ranks(found), _ranks(np.array(scores)))[0, 1])


def _embed(bundle: Bundle, texts: list[str], special: SpecialTokens | None = None) -> F32:
    with bundles.open_engine(bundle.precision) as engine:
        return engine.embed(texts, form=Form(special), bulk=True).vectors


def _ranks(values: F64) -> F64:
    """From 1; equal values share the mean of their ranks, as Spearman's correlation has it."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: F64 = np.cumsum(counts) - (counts - 1) / 2
    return shared[places]
