"""A cross-encoder in the engine, tiny and with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.bundle import Bundle, CorruptBundleError, Precision, SpecialTokens, write_golden
from nearshore.embedding import Embedder, Reranker, Reuse, Truncation, Workplace
from nearshore.embedding.errors import CrossEncoderError, ScoreMismatchError, TextTooLongError
from nearshore.embedding.pairs import PairCutter, shares, unfold
from nearshore.errors import OverloadedError
from nearshore.export.options import ExportOptions
from tests.tiny_bert import WORDS
from tests.tiny_cross_encoder import (
    KINDS,
    PASSAGES,
    QUERY,
    export,
    make_bundle,
    make_checkpoint,
    reference_logits,
    sigmoid,
)

MAX_TOKENS = 30
TEXTS = st.lists(st.sampled_from([*WORDS.split(), "[SEP]", "!", "qwxz"]), max_size=40).map(" ".join)
LONG = "fish " * 40


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: make_bundle(folder, kind, kind, max_tokens=MAX_TOKENS) for kind in KINDS}


@pytest.fixture(scope="module")
def workplace() -> Iterator[Workplace]:
    workplace = Workplace(workers=2, max_run_tokens=128, max_queued_tokens=100_000)
    yield workplace
    workplace.close()


@pytest.fixture(scope="module")
def rerankers(bundles: dict[str, Bundle], workplace: Workplace) -> dict[str, Reranker]:
    """One of each kind, in one workplace."""
    return {kind: Reranker.load(bundle, workplace) for kind, bundle in bundles.items()}


def logits(reranker: Reranker, query: str, *texts: str, **options: Any) -> bytes:
    """Their bits, one after the other."""
    return bytes(reranker.submit(query, texts, **options).result().logits.tobytes())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", [QUERY, "[SEP] a [CLS]", "the " * 50, "a"])
def test_scores_are_those_of_the_network(rerankers: dict[str, Reranker], kind: str, query: str) -> None:
    """As an independent forward pass has them: with token types where it has any, cut where the pair is too long."""
    texts = [*PASSAGES, LONG, "text that spells [SEP]"]
    found = rerankers[kind].submit(query, texts).result()
    expected = reference_logits([(query, text) for text in texts], kind, max_tokens=MAX_TOKENS)
    np.testing.assert_allclose(found.logits, expected, atol=2e-5)
    np.testing.assert_allclose(found.scores, sigmoid(expected), atol=1e-5)
    assert found.scores.dtype == np.float32
    assert found.tokens_used == [min(tokens, MAX_TOKENS) for tokens in found.tokens]


@settings(max_examples=40)
@given(query=TEXTS, text=TEXTS, company=st.lists(TEXTS, max_size=12), place=st.integers(0, 12))
def test_company_does_not_move_a_score(
    rerankers: dict[str, Reranker], query: str, text: str, company: list[str], place: int
) -> None:
    """A pair has the same bits alone, anywhere in any call, and beside other calls and models."""
    batch = [*company[:place], text, *company[place:]]
    for reranker in rerankers.values():
        alone = reranker.submit(query, [text]).result()
        others = [each.submit("a cat", batch) for each in rerankers.values()]
        together = reranker.submit(query, batch).result()
        index = min(place, len(company))
        assert together.logits[index].tobytes() == alone.logits.tobytes()
        assert together.scores[index].tobytes() == alone.scores.tobytes()
        for other in others:
            other.result()


@settings(max_examples=100)
@given(query=TEXTS, text=TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_put_together_as_by_the_tokenizers_library(
    bundles: dict[str, Bundle], kind: str, query: str, text: str
) -> None:
    """Ids and types, cut as transformers cuts pairs (longest_first); types only where the network has any."""
    bundle = bundles[kind]
    (row,) = PairCutter(bundle).cut(query, [text], truncation=Truncation.CUT_END, check_room=lambda _: None).rows
    ids, types = unfold([row], bundle.manifest.network.vocabulary_size)
    library: Any = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path))
    library.enable_truncation(MAX_TOKENS, strategy="longest_first")
    library.encode_special_tokens = True
    expected = library.encode(query, text)
    assert ids[0].tolist() == expected.ids
    assert types[0].tolist() == (expected.type_ids if kind == "bert" else [0] * len(row))


@given(query=st.integers(0, 60), text=st.integers(0, 60), room=st.integers(2, 50))
def test_neither_side_vanishes(query: int, text: int, room: int) -> None:
    """What is cut fills the room, and each keeps half of it or all that it has."""
    of_query, of_text = shares(query, text, room)
    assert of_query + of_text == min(query + text, room)
    assert of_query >= min(query, room // 2)
    assert of_text >= min(text, room // 2)


def test_the_start_of_texts_may_be_cut(rerankers: dict[str, Reranker]) -> None:
    """Then a text has the score of its end, and the query keeps its start."""
    reranker, room = rerankers["bert"], MAX_TOKENS - 3 - 2
    words = (WORDS * 2).split()
    cut = logits(reranker, "red fish", " ".join(words), truncation=Truncation.CUT_START)
    assert cut == logits(reranker, "red fish", " ".join(words[-room:]))
    assert cut != logits(reranker, "red fish", " ".join(words))


def test_a_pair_that_would_be_cut_is_refused_where_asked(rerankers: dict[str, Reranker]) -> None:
    """The message names the text, counts the query with it, and nothing is run."""
    with pytest.raises(TextTooLongError, match=r"Text 1 has 45 tokens with the query.*at most 30"):
        rerankers["bert"].submit("red fish", ["a cat", LONG], truncation=Truncation.REFUSE)


def test_what_does_not_fit_into_the_queue_is_refused(bundles: dict[str, Bundle]) -> None:
    """Before all of it is cut, with what may wait; the query counts with every text."""
    workplace = Workplace(workers=1, max_run_tokens=128, max_queued_tokens=100)
    reranker = Reranker.load(bundles["bert"], workplace)
    with pytest.raises(OverloadedError, match="at most 100 may wait"):
        reranker.submit(QUERY, ["a"] * 10)
    workplace.close()


def test_pairs_of_the_same_ids_and_other_types_are_told_apart(tmp_path: Path) -> None:
    """Where text can spell a separator, the boundary may lie elsewhere in the same ids: not the same pair."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    bundle = export(checkpoint, tmp_path / "judge", ExportOptions(special_tokens=SpecialTokens.PARSE))
    pairs = [("a [SEP] cat", "fish"), ("a", "cat [SEP] fish")]
    workplace = Workplace(workers=1, max_run_tokens=128, max_queued_tokens=10_000)
    reranker = Reranker.load(bundle, workplace)
    pending = [reranker.submit(query, [text]) for query, text in pairs * 4]
    found = [each.result().logits[0] for each in pending]
    assert found[0] != found[1]
    assert found == found[:2] * 4
    workplace.close()


def test_models_do_not_share_pairs(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    """The same ids under way for two models are two pairs, and no score is taken for a vector that is kept."""
    workplace = Workplace(workers=1, max_run_tokens=128, max_queued_tokens=10_000, reuse=Reuse(cache_bytes=1 << 20))
    other = make_bundle(tmp_path, "other", seed=1, max_tokens=MAX_TOKENS)
    loaded = [Reranker.load(each, workplace) for each in (bundles["bert"], other)]
    pending = [reranker.submit(QUERY, PASSAGES) for _ in range(3) for reranker in loaded]
    for number, each in enumerate(pending):
        expected = reference_logits([(QUERY, text) for text in PASSAGES], seed=number % 2, max_tokens=MAX_TOKENS)
        np.testing.assert_allclose(each.result().logits, expected, atol=2e-5)
    assert workplace.cache_bytes == 0
    workplace.close()


def test_a_machine_that_scores_otherwise_is_refused(tmp_path: Path, workplace: Workplace) -> None:
    """It would put texts into another order than where the bundle was made."""
    bundle = make_bundle(tmp_path)
    golden = bundle.golden_pairs()
    moved = golden.logits[:, np.newaxis] + np.float32(0.002)
    write_golden(bundle.path, golden.pairs, {Precision.FP32: moved})
    with pytest.raises(ScoreMismatchError, match="nearshore model get judge --force"):
        Reranker.load(bundle, workplace)
    write_golden(bundle.path, [text for _, text in golden.pairs], {Precision.FP32: moved})
    with pytest.raises(CorruptBundleError, match=r"golden\.npz has pairs of shape"):
        Reranker.load(bundle, workplace)


def test_a_tokenizer_without_separators_is_refused(tmp_path: Path, workplace: Workplace) -> None:
    """As in an export: nobody could tell where the query ends."""
    bundle = make_bundle(tmp_path)
    content = json.loads(bundle.tokenizer_path.read_text())
    content["post_processor"]["pair"] = content["post_processor"]["single"] + content["post_processor"]["pair"][3:4]
    bundle.tokenizer_path.write_text(json.dumps(content))
    with pytest.raises(CorruptBundleError, match="puts no special tokens between two texts"):
        Reranker.load(bundle, workplace)


def test_a_cross_encoder_does_not_embed(bundles: dict[str, Bundle], workplace: Workplace) -> None:
    """It has no pooling that would mean anything."""
    with pytest.raises(CrossEncoderError, match="gives no vectors"):
        Embedder.load(bundles["bert"], workplace)
