"""Exported checkpoints compute what their authors' code computes, to 2e-5 in every number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from nearshore.export.exporter import export_bundle
from tests.tiny_bert import embed_golden

TOLERANCE = 2e-5
HUGGING_FACE = ("bert_cross_encoder", "bert_gelu_new", "bert_mlm", "bert_pooler", "distilbert", "roberta")


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_agrees_with_transformers(checkpoints: Path, tmp_path: Path, name: str) -> None:
    """Every output of single texts, padded batches and pairs, padding included."""
    folder = checkpoints / "hf" / name
    bundle = export_bundle(folder, tmp_path / name, name=name, embed_golden=embed_golden)
    session = ort.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    expected = np.load(folder / "expected.npz")
    worst: dict[str, float] = {}
    for case in sorted({key.partition("/")[0] for key in expected}):
        feed = {each: expected[f"{case}/{each}"] for each in bundle.manifest.inputs}
        outputs = list(bundle.manifest.outputs)
        for output, found in zip(outputs, session.run(outputs, feed), strict=True):
            difference = float(np.abs(found - expected[f"{case}/{output}"]).max())
            worst[output] = max(difference, worst.get(output, 0.0))
    print(name, worst)
    assert max(worst.values()) <= TOLERANCE
