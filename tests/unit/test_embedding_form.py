"""What a caller asks of vectors: how many components, and of which length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearshore.bundle import SpecialTokens
from nearshore.embedding import Embedder, Form
from nearshore.export.exporter import export_bundle
from tests.tiny_bert import corpus, embed_golden, make_bundle, make_checkpoint, write_json

TEXTS = corpus(12)
DIMENSIONS = 32
FORMS = st.builds(
    Form,
    special=st.sampled_from([None, *SpecialTokens]),
    dimensions=st.none() | st.integers(1, DIMENSIONS),
    normalize=st.sampled_from([None, True, False]),
)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    bundle = make_bundle(tmp_path_factory.mktemp("models"))
    with Embedder.open(bundle, workers=2, max_run_tokens=128, max_queued_tokens=100_000) as opened:
        yield opened


@pytest.mark.parametrize("kept", [1, 7, 16, 31])
def test_the_first_components_are_kept_and_normalized(embedder: Embedder, kept: int) -> None:
    """They point where the first components of the whole vectors do, have unit length, and another fingerprint."""
    whole, cut = embedder.embed(TEXTS), embedder.embed(TEXTS, form=Form(dimensions=kept))
    assert cut.vectors.shape == (len(TEXTS), kept)
    assert cut.vectors.dtype == np.float32
    first = whole.vectors[:, :kept].astype(np.float64)
    np.testing.assert_allclose(cut.vectors, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)
    assert cut.fingerprint == embedder.fingerprint(Form(dimensions=kept)) != whole.fingerprint
    assert (cut.tokens, cut.tokens_used) == (whole.tokens, whole.tokens_used)


def test_all_components_are_no_cut(embedder: Embedder) -> None:
    """Asked for by number they have the same bits and the same fingerprint as if nothing was asked."""
    whole, asked = embedder.embed(TEXTS), embedder.embed(TEXTS, form=Form(dimensions=DIMENSIONS))
    assert asked.vectors.tobytes() == whole.vectors.tobytes()
    assert asked.fingerprint == whole.fingerprint == embedder.fingerprint()


def test_no_texts_are_no_vectors_of_that_width(embedder: Embedder) -> None:
    """An empty call has the width and the fingerprint that was asked for."""
    nothing = embedder.embed([], form=Form(dimensions=5))
    assert nothing.vectors.shape == (0, 5)
    assert nothing.fingerprint == embedder.fingerprint(Form(dimensions=5))


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(0, len(TEXTS) - 1),
    company=st.lists(st.sampled_from(TEXTS), max_size=20),
    form=FORMS,
    other=FORMS,
)
def test_company_does_not_move_a_vector(
    embedder: Embedder, number: int, company: list[str], form: Form, other: Form
) -> None:
    """In any form a text has the same bits alone, in any batch, and beside a request for another form."""
    alone = embedder.embed([TEXTS[number]], form=form).vectors[0].tobytes()
    together = embedder.submit([*company, TEXTS[number]], form=form)
    beside = embedder.submit(TEXTS, form=other)
    assert together.result().vectors[-1].tobytes() == alone
    assert beside.result().fingerprint == embedder.fingerprint(other)


def test_vectors_keep_their_length_if_asked(embedder: Embedder) -> None:
    """They point where those of unit length do, at another length and with another fingerprint."""
    unit, raw = embedder.embed(TEXTS), embedder.embed(TEXTS, form=Form(normalize=False))
    lengths = np.linalg.norm(raw.vectors.astype(np.float64), axis=1, keepdims=True)
    assert (abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(raw.vectors / lengths, unit.vectors, atol=1e-6)
    assert raw.fingerprint == embedder.fingerprint(Form(normalize=False)) != unit.fingerprint
    same = embedder.embed(TEXTS, form=Form(normalize=True))
    assert (same.vectors.tobytes(), same.fingerprint) == (unit.vectors.tobytes(), unit.fingerprint)
    cut = embedder.embed(TEXTS, form=Form(dimensions=9, normalize=False))
    np.testing.assert_array_equal(cut.vectors, raw.vectors[:, :9])
    assert len({unit.fingerprint, raw.fingerprint, cut.fingerprint, embedder.fingerprint(Form(dimensions=9))}) == 4


def test_a_bundle_that_does_not_normalize_is_only_cut(tmp_path: Path) -> None:
    """The first components of its vectors come as they are, bit for bit; a request may still have them normalized."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    pooling = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
    write_json(checkpoint / "modules.json", [{"type": "sentence_transformers.models.Transformer", "path": ""}, pooling])
    bundle = export_bundle(checkpoint, tmp_path / "plain", name="plain", embed_golden=embed_golden)
    with Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=100_000) as plain:
        whole, cut = plain.embed(TEXTS), plain.embed(TEXTS, form=Form(dimensions=9))
        unit = plain.embed(TEXTS, form=Form(dimensions=9, normalize=True))
    np.testing.assert_array_equal(cut.vectors, whole.vectors[:, :9])
    np.testing.assert_allclose(np.linalg.norm(unit.vectors, axis=1), 1, atol=1e-6)
    assert len({each.fingerprint for each in (whole, cut, unit)}) == 3
