"""The exported graph computes what BERT is, and the same for a text whatever company it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from tests.numpy_bert import I64, NumpyBert
from tests.tiny_bert import embed_golden, make_checkpoint

TOLERANCE = 2e-5


class Exported:
    """A session of an exported tiny BERT beside its NumPy twin."""

    def __init__(self, folder: Path, *, hidden: int, heads: int, layers: int, activation: str) -> None:
        checkpoint = make_checkpoint(
            folder / "checkpoint", hidden=hidden, heads=heads, layers=layers, config={"hidden_act": activation}
        )
        options = ExportOptions(pooled_output=True)
        self.bundle = export_bundle(
            checkpoint, folder / "tiny", name="tiny", embed_golden=embed_golden, options=options
        )
        threads = ort.SessionOptions()
        threads.intra_op_num_threads = 1
        self.session = ort.InferenceSession(str(self.bundle.model_path), threads, providers=["CPUExecutionProvider"])
        config = json.loads((checkpoint / "config.json").read_text())
        self.reference = NumpyBert(load_file(checkpoint / "model.safetensors"), config)
        self.words = self.bundle.manifest.network.vocabulary_size

    def run(self, ids: I64, mask: I64, types: I64) -> tuple[Any, Any]:
        """Sequence output and pooled output."""
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        sequence, pooled = self.session.run(["sequence_output", "pooled_output"], feed)
        return sequence, pooled


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("tiny"), hidden=32, heads=4, layers=2, activation="gelu")


@pytest.mark.parametrize(
    ("hidden", "heads", "layers", "activation"),
    [(32, 4, 2, "gelu"), (32, 4, 2, "gelu_new"), (24, 1, 1, "gelu"), (48, 12, 3, "gelu")],
)
def test_agrees_with_numpy(tmp_path: Path, hidden: int, heads: int, layers: int, activation: str) -> None:
    """Both outputs are those of a plain NumPy BERT, for padded batches with two token types."""
    model = Exported(tmp_path, hidden=hidden, heads=heads, layers=layers, activation=activation)
    rng = np.random.default_rng(1)
    for texts, length in ((1, 1), (1, 2), (1, 64), (3, 7), (5, 33)):
        ids, types = rng.integers(0, model.words, (texts, length)), rng.integers(0, 2, (texts, length))
        mask = np.ones((texts, length), np.int64)
        for row in range(texts):
            mask[row, rng.integers(1, length + 1) :] = 0
        sequence, pooled = model.run(ids, mask, types)
        expected = model.reference.sequence_output(ids, mask, types)
        np.testing.assert_allclose(sequence[mask == 1], expected[mask == 1], atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(pooled, model.reference.pooled_output(expected), atol=TOLERANCE, rtol=0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.integers(1, 17), length=st.integers(2, 64), seed=st.integers(0, 2**32 - 1))
def test_company_moves_no_bit(tiny: Exported, texts: int, length: int, seed: int) -> None:
    """Each text of a run of equally long texts gets bit for bit what it gets alone."""
    ids = np.random.default_rng(seed).integers(0, tiny.words, (texts, length))
    mask, types = np.ones_like(ids), np.zeros_like(ids)
    together, _ = tiny.run(ids, mask, types)
    for row in range(texts):
        alone, _ = tiny.run(ids[row : row + 1], mask[:1], types[:1])
        assert alone[0].tobytes() == together[row].tobytes()


def test_padding_changes_nothing(tiny: Exported) -> None:
    """What lies behind the mask has no influence on the tokens before it."""
    rng = np.random.default_rng(2)
    ids = rng.integers(0, tiny.words, (1, 20))
    types = np.zeros_like(ids)
    alone, _ = tiny.run(ids[:, :9], np.ones((1, 9), np.int64), types[:, :9])
    mask = (np.arange(20) < 9).astype(np.int64)[None]
    padded, _ = tiny.run(ids, mask, types)
    np.testing.assert_allclose(padded[0, :9], alone[0], atol=TOLERANCE, rtol=0)


def test_names_types_and_axes(tiny: Exported) -> None:
    """Inputs and outputs are named and typed as the manifest says, with batch and sequence left open."""
    graph = onnx.load(tiny.bundle.model_path).graph
    axes = {
        value.name: [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert axes == {
        **{name: ["batch", "sequence"] for name in tiny.bundle.manifest.inputs},
        "sequence_output": ["batch", "sequence", 32],
        "pooled_output": ["batch", 32],
    }
    assert {value.type.tensor_type.elem_type for value in graph.input} == {onnx.TensorProto.INT64}
    assert tiny.bundle.manifest.outputs == ("sequence_output", "pooled_output")


def test_residuals_stay_apart_from_normalization(tiny: Exported, tmp_path: Path) -> None:
    """ONNX Runtime's optimizer leaves the graph without SkipLayerNormalization, which is slow on CPUs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # an optimized graph is tied to the machine, which it warns of
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(tiny.bundle.model_path), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "SkipLayerNormalization" not in operators
    assert operators.count("Attention") == 2
