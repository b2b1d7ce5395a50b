"""Exported checkpoints compute what their authors' code computes, to 2e-5 in every number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from nearshore.bundle import Bundle
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from tests.tiny_bert import embed_golden

TOLERANCE = 2e-5
HUGGING_FACE = ("bert_cross_encoder", "bert_gelu_new", "bert_mlm", "bert_pooler", "distilbert", "roberta")


def worst_differences(bundle: Bundle, expected: Mapping[str, Any]) -> dict[str, float]:
    """The largest difference of each output over all cases; keys are `case/name`, inputs among them."""
    session = ort.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    worst: dict[str, float] = {}
    for case in sorted({key.partition("/")[0] for key in expected}):
        inputs = {each: expected[f"{case}/{each}"] for each in bundle.manifest.inputs}
        outputs = [name for name in names(expected, case) if name not in inputs]
        for output, found in zip(outputs, session.run(outputs, inputs), strict=True):
            difference = float(np.abs(found - expected[f"{case}/{output}"]).max())
            worst[output] = max(difference, worst.get(output, 0.0))
    return worst


def names(expected: Mapping[str, Any], case: str) -> list[str]:
    """What is expected in a case, inputs included."""
    return [key.partition("/")[2] for key in expected if key.startswith(f"{case}/")]


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_agrees_with_transformers(checkpoints: Path, tmp_path: Path, name: str) -> None:
    """Every output of single texts, padded batches and pairs, padding included."""
    folder = checkpoints / "hf" / name
    expected = np.load(folder / "expected.npz")
    given = names(expected, "pair")
    options = ExportOptions(pooled_output="pooled_output" in given, all_layers=True, mlm="mlm_logits" in given)
    bundle = export_bundle(folder, tmp_path / name, name=name, embed_golden=embed_golden, options=options)
    worst = worst_differences(bundle, expected)
    print(name, worst)
    assert max(worst.values()) <= TOLERANCE
