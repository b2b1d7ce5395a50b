"""Exported checkpoints compute what their authors' code computes, to 2e-5 in every number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from nearshore.bundle import Bundle
from nearshore.embedding.packing import Packer
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from tests.servers import InProcessServer, make_settings
from tests.tiny_bert import embed_golden, make_bundle

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


def test_a_running_server_scores_pairs_as_transformers(checkpoints: Path, tmp_path: Path) -> None:
    """The logits of pairs, which were padded to one length there, and come one by one here."""
    folder = checkpoints / "hf" / "bert_cross_encoder"
    expected, texts = np.load(folder / "expected.npz"), json.loads((folder / "inputs.json").read_text())
    make_bundle(tmp_path / "models")
    export_bundle(folder, tmp_path / "models" / "judge", name="judge", embed_golden=embed_golden)
    server = InProcessServer(make_settings(tmp_path / "data", tmp_path / "models", embedding__models="judge"))
    try:
        with server.client() as client:
            found = [client.rerank(query, [text], model="judge").results[0].logit for query, text in texts["pairs"]]
    finally:
        server.stop()
    worst = float(np.abs(np.array(found) - expected["pair/logits"][:, 0]).max())
    print("pairs through a server", worst)
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", ["bert_pooler", "bert_mlm"])
def test_tensorflow_1_agrees_with_transformers(checkpoints: Path, tmp_path: Path, name: str) -> None:
    """The same BERTs as checkpoints of TensorFlow 1, token numbers included."""
    expected = np.load(checkpoints / "hf" / name / "expected.npz")
    options = ExportOptions(pooled_output=name == "bert_pooler", all_layers=True, mlm=name == "bert_mlm")
    folder = checkpoints / "tf1" / name
    bundle = export_bundle(folder, tmp_path / name, name=name, embed_golden=embed_golden, options=options)
    worst = worst_differences(bundle, expected)
    print("tf1", name, worst)
    assert max(worst.values()) <= TOLERANCE
    texts = json.loads((checkpoints / "hf" / name / "inputs.json").read_text())
    packer = Packer(bundle.tokenizer_path, special=bundle.manifest.special_tokens)
    packed = packer.pack([(text,) for text in texts["texts"]], texts["max_length"])
    assert (packed.ids == expected["padded/input_ids"]).all()
    assert (packed.mask == expected["padded/attention_mask"]).all()
    pairs = packer.pack([tuple(pair) for pair in texts["pairs"]], expected["pair/input_ids"].shape[1])
    assert (pairs.ids == expected["pair/input_ids"]).all()
    assert (pairs.types == expected["pair/token_type_ids"]).all()


def hub_folder(checkpoints: Path, name: str, scratch: Path) -> Path:
    """The checkpoint; those of TensorFlow 2 lack configuration and vocabulary, which lie beside the original."""
    folder = checkpoints / "tfhub" / name
    if (folder / "bert_config.json").exists() or (folder / "saved_model.pb").exists():
        return folder
    (scratch / "whole").mkdir()
    beside = [checkpoints / "tfhub" / "tf1" / file for file in ("bert_config.json", "vocab.txt")]
    for file in (*folder.iterdir(), *beside):
        (scratch / "whole" / file.name).symlink_to(file)
    return scratch / "whole"


@pytest.mark.parametrize("name", ["tf1", "tf2/encoder", "tf2/pretrainer", "hub/encoder", "hub/encoder_mlm"])
def test_agrees_with_tensorflow(checkpoints: Path, tmp_path: Path, name: str) -> None:
    """One BERT at every stage of its way to TF Hub: packed inputs, special tokens and every output."""
    expected = dict(np.load(checkpoints / "tfhub" / "expected.npz"))
    given = json.loads((checkpoints / "tfhub" / "inputs.json").read_text())
    mlm = name in {"tf1", "tf2/pretrainer", "hub/encoder_mlm"}
    folder, options = hub_folder(checkpoints, name, tmp_path), ExportOptions(contract="tfhub", mlm=mlm)
    bundle = export_bundle(folder, tmp_path / "bundle", name="hub", embed_golden=embed_golden, options=options)
    positions, scores = expected.pop("mlm64/masked_lm_positions"), expected.pop("mlm64/mlm_logits")
    expected |= {f"mlm64/{each}": expected[f"single64/{each}"] for each in bundle.manifest.inputs}
    worst = worst_differences(bundle, expected)
    if mlm:
        session = ort.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
        inputs = {each: expected[f"single64/{each}"] for each in bundle.manifest.inputs}
        found = session.run(["mlm_logits"], inputs)[0]
        picked = np.take_along_axis(found, positions[:, :, None].astype(np.int64), axis=1)
        worst["mlm_logits"] = float(np.abs(picked - scores).max())
    print(name, worst)
    assert max(worst.values()) <= TOLERANCE
    check_packing(bundle, expected, given)


def check_packing(bundle: Bundle, expected: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Token numbers, masks and types are those of TF Hub's preprocessing, at every length."""
    packer = Packer(bundle.tokenizer_path, special=bundle.manifest.special_tokens)
    assert asdict(packer.table) == given["special_tokens"]
    for length in given["seq_lengths"]:
        for kind, texts in (("single", [(text,) for text in given["texts"]]), ("pair", map(tuple, given["pairs"]))):
            packed = packer.pack(list(texts), length)
            assert (packed.ids == expected[f"{kind}{length}/input_word_ids"]).all()
            assert (packed.mask == expected[f"{kind}{length}/input_mask"]).all()
            assert (packed.types == expected[f"{kind}{length}/input_type_ids"]).all()
