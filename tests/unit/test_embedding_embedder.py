"""The whole engine, on a tiny model with random weights."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.bundle import Bundle, CorruptBundleError, Pooling, Precision, SpecialTokens, write_golden
from nearshore.embedding import Embedder, Form, TokenRoom, Truncation
from nearshore.embedding.errors import ModelMismatchError, TextTooLongError, TokenVectorsTooLargeError
from nearshore.embedding.session import Session
from nearshore.errors import DeadlineError, OverloadedError, UnavailableError
from tests.tiny_bert import WORDS, corpus, embed_golden, make_bundle

MAX_TOKENS = 48
TEXTS = st.lists(st.sampled_from([*WORDS.split(), "[SEP]", "!", "qwxz"]), max_size=60).map(" ".join)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("models"), max_tokens=MAX_TOKENS)


@pytest.fixture(scope="module")
def embedder(bundle: Bundle) -> Iterator[Embedder]:
    with Embedder.open(bundle, workers=2, max_run_tokens=128, max_queued_tokens=100_000) as embedder:
        yield embedder


def test_vectors_are_those_of_the_model(bundle: Bundle, embedder: Embedder) -> None:
    """The engine gives what the plainest use of ONNX Runtime gives, for short, empty and over-long texts."""
    texts = ["", "cat", "how to parse [SEP] a date", *corpus(20), "the " * 100]
    answer = embedder.embed(texts)
    assert answer.vectors.shape == (len(texts), embedder.dimensions)
    assert answer.vectors.dtype == np.float32
    np.testing.assert_allclose(answer.vectors, embed_golden(bundle, texts), atol=1e-5)
    assert (answer.tokens[0], answer.tokens_used[0]) == (2, 2)
    assert (answer.tokens[-1], answer.tokens_used[-1]) == (102, MAX_TOKENS)
    assert answer.fingerprint == bundle.manifest.fingerprint


@settings(max_examples=50)
@given(
    text=TEXTS, company=st.lists(TEXTS, max_size=20), place=st.integers(0, 20), special=st.sampled_from(SpecialTokens)
)
def test_company_does_not_move_a_vector(
    embedder: Embedder, text: str, company: list[str], place: int, special: SpecialTokens
) -> None:
    """A text has the same bits alone and anywhere in any batch."""
    place = min(place, len(company))
    batch = [*company[:place], text, *company[place:]]
    alone = embedder.embed([text], form=Form(special)).vectors[0]
    assert embedder.embed(batch, form=Form(special)).vectors[place].tobytes() == alone.tobytes()


@settings(max_examples=30)
@given(
    text=TEXTS, company=st.lists(TEXTS, max_size=20), place=st.integers(0, 20), special=st.sampled_from(SpecialTokens)
)
def test_company_does_not_move_the_vectors_of_tokens(
    bundle: Bundle, embedder: Embedder, text: str, company: list[str], place: int, special: SpecialTokens
) -> None:
    """A text's tokens have the network's bits, whatever shares its batch; and its own vector is what it always is."""
    place = min(place, len(company))
    batch = [*company[:place], text, *company[place:]]
    answer = embedder.submit(batch, form=Form(special), token_claim=TokenRoom(1 << 24).claim()).result()
    found = answer.token_vectors[place]
    (tokens,) = embedder.tokenize([text], special)
    assert found.ids == tokens.used_ids
    assert found.vectors.tobytes() == Session(bundle).run_tokens([tokens.used_ids]).tobytes()
    assert answer.vectors[place].tobytes() == embedder.embed([text], form=Form(special)).vectors[0].tobytes()


def test_vectors_of_tokens_have_fingerprints_of_their_own(embedder: Embedder) -> None:
    """One for each way to read special tokens, none of them that of vectors of texts in any form."""
    forms = [Form(special, normalize=unit) for special in SpecialTokens for unit in (True, False)]
    of_tokens = set()
    for form in forms:
        answer = embedder.submit(["cat"], form=form, token_claim=TokenRoom(1 << 24).claim()).result()
        of_tokens.add(answer.token_vectors[0].fingerprint)
    assert len(of_tokens) == len(SpecialTokens)
    assert not of_tokens & {embedder.fingerprint(form) for form in forms}


def test_vectors_of_tokens_that_fit_no_answer_are_refused(embedder: Embedder) -> None:
    """Before anything is run, with what would fit; as many texts as that says are taken."""
    room, texts = TokenRoom(64 << 10), ["cat " * 40] * 20
    with pytest.raises(
        TokenVectorsTooLargeError, match=r"840 tokens make an answer.*server\.max_message_bytes"
    ) as told:
        embedder.submit(texts, token_claim=room.claim())
    fitting = int(re.findall(r"at most ([\d,]+) tokens", told.value.remedy)[0].replace(",", ""))
    assert (
        len(embedder.submit(texts[: fitting // 42], token_claim=room.claim()).result().token_vectors) == fitting // 42
    )
    with pytest.raises(TokenVectorsTooLargeError):
        embedder.submit(texts[: fitting // 42 + 1], token_claim=room.claim())


def test_room_for_vectors_of_tokens_is_kept_until_it_is_given_back(bundle: Bundle, embedder: Embedder) -> None:
    """Answered, refused or left, a call gives back what it took, once; while all is taken, more are told so."""
    room, texts = TokenRoom(16 << 10), ["cat " * 40] * 2
    closed = Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1_000)
    closed.close()
    for _ in range(10):
        claims = [room.claim() for _ in range(3)]
        embedder.submit(texts, token_claim=claims[0]).result()
        embedder.submit(texts, token_claim=claims[1]).cancel()
        with pytest.raises(UnavailableError):
            closed.submit(texts, token_claim=claims[2])
        for claim in (*claims, *claims):
            claim.free()
    kept = [room.claim() for _ in range(4)]
    for claim in kept:
        claim.take(1, 16 << 10)
    with pytest.raises(OverloadedError, match="others of 65,536 are being made or sent"):
        embedder.submit(texts, token_claim=room.claim())
    kept[0].free()
    embedder.submit(texts, token_claim=room.claim()).result()


def test_a_call_that_is_over_takes_no_more_room(embedder: Embedder) -> None:
    """Its caller has left while its texts were cut in another thread: nobody would give that back."""
    room = TokenRoom(16 << 10)
    for _ in range(10):
        claim = room.claim()
        claim.free()
        with pytest.raises(CancelledError):
            embedder.submit(["cat " * 40] * 2, token_claim=claim)
    for _ in range(4):
        room.claim().take(1, 16 << 10)


def test_texts_are_not_cut_beyond_the_deadline(bundle: Bundle) -> None:
    """A minute's worth of texts does not keep a thread whose caller is gone: it ends with the text in hand."""
    with (
        Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1 << 20) as other,
        pytest.raises(DeadlineError),
    ):
        other.submit(["cat " * 70_000] * 8, deadline=time.monotonic() + 0.02)


def test_64_callers_do_not_move_a_vector(embedder: Embedder) -> None:
    """Texts alone, in one batch, and shuffled among 64 callers at once, interactive and bulk, have the same bits."""
    texts = corpus(256)
    alone = [embedder.embed([text]).vectors[0].tobytes() for text in texts]
    assert [vector.tobytes() for vector in embedder.embed(texts).vectors] == alone
    shares = np.random.default_rng(3).permutation(len(texts)).reshape(64, 4)
    together = threading.Barrier(64)

    def call(number: int) -> list[bytes]:
        together.wait()
        answer = embedder.embed([texts[index] for index in shares[number]], bulk=number % 2 == 0)
        return [vector.tobytes() for vector in answer.vectors]

    with ThreadPoolExecutor(64) as callers:
        for share, vectors in zip(shares, callers.map(call, range(64)), strict=True):
            assert vectors == [alone[index] for index in share]


def test_modes_have_their_own_fingerprints_and_vectors(embedder: Embedder) -> None:
    """Special tokens as text or parsed: one process serves both, and says which it was."""
    text = ["cat [SEP] dog"]
    answers = [embedder.embed(text, form=Form(special)) for special in SpecialTokens]
    assert [answer.fingerprint for answer in answers] == [
        embedder.fingerprint(Form(special)) for special in SpecialTokens
    ]
    assert answers[0].fingerprint != answers[1].fingerprint
    assert not np.array_equal(answers[0].vectors, answers[1].vectors)


def test_over_long_text_can_be_refused(embedder: Embedder) -> None:
    """With REFUSE the call fails and names the first text that would be cut; one that just fits is taken."""
    fits, too_long = "cat " * (MAX_TOKENS - 2), "cat " * (MAX_TOKENS - 1)
    assert embedder.embed([fits], truncation=Truncation.REFUSE).tokens == [MAX_TOKENS]
    with pytest.raises(TextTooLongError, match="Text 1 has 49 tokens; the model takes at most 48") as caught:
        embedder.embed([fits, too_long], truncation=Truncation.REFUSE)
    assert caught.value.metadata == {"index": "1", "tokens": "49", "max_tokens": "48"}


def test_over_long_text_can_lose_its_start(embedder: Embedder) -> None:
    """With CUT_START it has, bit for bit, the vector and the fingerprint of its last words; what fits is as ever."""
    words = (WORDS.split() * 2)[:100]
    texts = ["a cat", " ".join(words), "", " ".join(words[::-1])]
    cut = embedder.embed(texts, truncation=Truncation.CUT_START)
    left = [" ".join(text.split()[-(MAX_TOKENS - 2) :]) for text in texts]
    expected = embedder.embed(left, truncation=Truncation.REFUSE)
    assert cut.vectors.tobytes() == expected.vectors.tobytes()
    assert (cut.tokens, cut.tokens_used) == ([4, 102, 2, 102], [4, MAX_TOKENS, 2, MAX_TOKENS])
    assert cut.fingerprint == embedder.fingerprint()
    alone = [embedder.embed([text], truncation=Truncation.CUT_START).vectors[0].tobytes() for text in texts]
    assert [vector.tobytes() for vector in cut.vectors] == alone


def test_a_cut_start_may_leave_parsed_special_tokens(embedder: Embedder) -> None:
    """Those that the text spells go with its start or stay with its end, as other tokens do."""
    text, left = "[SEP] " * 3 + "cat " * 60 + "[SEP] dog", "cat " * (MAX_TOKENS - 4) + "[SEP] dog"
    form = Form(SpecialTokens.PARSE)
    cut = embedder.embed([text], form=form, truncation=Truncation.CUT_START)
    assert cut.vectors.tobytes() == embedder.embed([left], form=form, truncation=Truncation.REFUSE).vectors.tobytes()


def test_no_texts_are_no_vectors(embedder: Embedder) -> None:
    """An empty call is answered at once with an empty matrix of the right width."""
    assert embedder.embed([]).vectors.shape == (0, embedder.dimensions)


def test_tokens_are_shown_as_embed_cuts_them(embedder: Embedder) -> None:
    """Tokenize and spell together explain what embed counts."""
    (tokens,) = embedder.tokenize(["cats"])
    assert embedder.spell(tokens.ids) == ["[CLS]", "cat", "##s", "[SEP]"]
    assert embedder.embed(["cats"]).tokens == [4]


def test_an_overfull_call_is_refused(bundle: Bundle) -> None:
    """What can never fit is refused, whether or not its tokens had to be counted first."""
    with Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=100) as embedder:
        for texts in (["cat dog"] * 30, ["a"] * 51):
            with pytest.raises(OverloadedError, match=r"embedding\.max_queued_tokens"):
                embedder.embed(texts)
        assert embedder.queued_tokens == 0
        assert len(embedder.embed(["cat"] * 30).vectors) == 30


def test_a_large_overfull_call_is_refused_before_it_is_tokenized_whole(bundle: Bundle) -> None:
    """Of a call that cannot fit, only as much text is looked at as shows it, and tokens come as they are taken."""
    given = 0

    def texts() -> Iterator[str]:
        nonlocal given
        for _ in range(400):
            given += 1
            yield "cat " * 1_000

    class Call(list[str]):
        def __iter__(self) -> Iterator[str]:
            return texts()

    with Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1024) as embedder:
        with pytest.raises(OverloadedError, match="tokens or more"):
            embedder.embed(Call([""] * 400))
        assert 0 < given < 100
        given = 0
        assert len(next(embedder.tokenize(texts())).ids) == 1_002
        assert 0 < given < 100


def test_a_closed_engine_is_unavailable(bundle: Bundle) -> None:
    """After close a call fails instead of waiting for workers that are gone."""
    embedder = Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1000)
    embedder.close()
    with pytest.raises(UnavailableError):
        embedder.embed(["cat"])


def test_zero_workers_means_one_a_core(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of workers follows the cores that the process may use."""
    monkeypatch.setattr("nearshore.embedding.workplace.usable_cores", lambda: 3)
    before = threading.active_count()
    with Embedder.open(bundle, workers=0, max_run_tokens=128, max_queued_tokens=1000):
        assert threading.active_count() == before + 3


def test_a_model_that_differs_never_serves(tmp_path: Path) -> None:
    """A machine that does not reproduce the golden vectors is refused, naming the text, the cosine and a way out."""
    bundle = make_bundle(tmp_path)
    golden = bundle.golden()
    wrong = golden.vectors.copy()
    wrong[1] = wrong[1] + np.float32(0.02) * np.roll(wrong[1], 1)
    write_golden(bundle.path, list(golden.texts), {Precision.FP32: wrong})
    with pytest.raises(ModelMismatchError, match=r"cosine 0\.99.*nearshore model get tiny") as caught:
        Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1000)
    assert repr(golden.texts[1][:80]) in caught.value.message


def test_broken_numbers_never_serve(tmp_path: Path) -> None:
    """NaN compares as neither larger nor smaller, and must still be refused."""
    bundle = make_bundle(tmp_path)
    golden = bundle.golden()
    write_golden(bundle.path, list(golden.texts), {Precision.FP32: np.full_like(golden.vectors, np.nan)})
    with pytest.raises(ModelMismatchError, match="cosine nan"):
        Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1000)


def test_a_graph_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """A graph that ONNX Runtime refuses fails the start with the folder and the way out."""
    bundle = make_bundle(tmp_path)
    bundle.model_path.write_bytes(b"not a graph")
    with pytest.raises(CorruptBundleError, match=r"ONNX Runtime cannot load the graph.*nearshore model get"):
        Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1000)


def test_a_bundle_may_pool_and_normalize_otherwise(tmp_path: Path) -> None:
    """Pooling and normalization are the bundle's: the first token's vector, unnormalized, is served as it is."""
    bundle = make_bundle(tmp_path)
    manifest = bundle.manifest.model_copy(update={"pooling": (Pooling.CLS,), "normalize": False})
    other = Bundle(bundle.path, manifest)
    write_golden(bundle.path, ["cat"], {Precision.FP32: embed_golden(other, ["cat"])})
    with Embedder.open(other, workers=1, max_run_tokens=128, max_queued_tokens=1000) as embedder:
        np.testing.assert_allclose(embedder.embed(["dog bird"]).vectors, embed_golden(other, ["dog bird"]), atol=1e-5)
