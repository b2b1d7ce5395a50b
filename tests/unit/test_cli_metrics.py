"""The figures of `nearshore eval`, against values worked out by hand from trec_eval's definitions."""

import math

import pytest

from nearshore.cli.metrics import average, ndcg, recall, reciprocal_rank

JUDGED = {"a": 1, "b": 2, "c": 0, "d": -1}


def test_ndcg_has_linear_gain() -> None:
    """A relevance of 2 counts twice a relevance of 1, not three times."""
    # found: a (1) at rank 1, b (2) at rank 3; ideal: b at 1, a at 2
    assert ndcg(["a", "x", "b"], JUDGED, 10) == pytest.approx((1 + 2 / 2) / (2 + 1 / math.log2(3)))


def test_ndcg_of_the_best_ranking_is_one() -> None:
    """Documents in the order of their relevance score 1, whatever follows."""
    assert ndcg(["b", "a", "c", "x"], JUDGED, 10) == pytest.approx(1.0)


def test_ndcg_looks_no_deeper_than_k() -> None:
    """What stands below rank k neither helps nor is expected."""
    assert ndcg(["x", "b"], JUDGED, 1) == 0.0
    assert ndcg(["b", "x"], JUDGED, 1) == pytest.approx(1.0)


def test_negative_relevance_is_no_gain() -> None:
    """A document judged below zero counts as not relevant, not as a loss."""
    assert ndcg(["d", "b", "a"], JUDGED, 10) == pytest.approx(ndcg(["c", "b", "a"], JUDGED, 10))


def test_recall_is_the_share_of_relevant_documents() -> None:
    """Documents of relevance 0 and less are not to be found."""
    assert recall(["a", "c", "d"], JUDGED, 10) == pytest.approx(0.5)
    assert recall(["c", "a", "b"], JUDGED, 2) == pytest.approx(0.5)


def test_reciprocal_rank_is_of_the_first_relevant_document() -> None:
    """Later ones do not matter, and one beyond k does not exist."""
    assert reciprocal_rank(["c", "x", "b", "a"], JUDGED, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(["c", "x", "b"], JUDGED, 2) == 0.0


def test_nothing_relevant_scores_nothing() -> None:
    """A query whose judgements are all 0 scores 0 and divides by nothing."""
    assert (ndcg(["a"], {"a": 0}, 10), recall(["a"], {"a": 0}, 10), reciprocal_rank(["a"], {"a": 0}, 10)) == (0, 0, 0)


def test_queries_without_judgements_are_left_out_of_the_average() -> None:
    """They would count as failures of which nobody said that they are."""
    figures = average(
        {"1": ["a"], "2": ["x"], "3": ["b"]}, {"1": {"a": 1}, "2": {"b": 1}, "9": {"a": 1}}, recall_at=[1]
    )
    assert (figures.queries, figures.ndcg_at_10, figures.recall_at, figures.mrr_at_10) == (2, 0.5, {1: 0.5}, 0.5)


def test_no_judged_query_gives_zeros() -> None:
    """An empty average is 0, not an error."""
    assert average({}, {}, recall_at=[10]).ndcg_at_10 == 0.0
