"""An engine that embeds identical texts once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearshore.embedding import Embedder, Reuse
from nearshore.metrics import Metrics
from tests.tiny_bert import corpus, make_bundle


def total(metrics: Metrics, name: str) -> float:
    """A counter's value."""
    value = metrics.registry.get_sample_value(name)
    assert value is not None
    return value


@pytest.mark.parametrize(("share", "embedded"), [(True, 8), (False, 24)])
def test_repeated_texts_are_embedded_as_the_setting_says(tmp_path: Path, share: bool, embedded: int) -> None:
    """A text that a call repeats is embedded once, or each time where sharing is off, and has the same bits."""
    metrics, texts = Metrics(), list(dict.fromkeys(corpus(9)))[:8]
    reuse = Reuse(share_in_flight=share)
    with Embedder.open(
        make_bundle(tmp_path), workers=1, max_run_tokens=64, max_queued_tokens=10_000, reuse=reuse, observer=metrics
    ) as engine:
        vectors = engine.embed([*texts, *reversed(texts), *texts]).vectors
        assert total(metrics, "nearshore_embedded_texts_total") == embedded
        alone = np.concatenate([engine.embed([text]).vectors for text in texts])
    assert vectors.tobytes() == np.concatenate([alone, alone[::-1], alone]).tobytes()
