"""A sequence classifier of one label becomes a bundle that scores pairs, and says how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from nearshore.bundle import (
    Classifier,
    CorruptBundleError,
    Precision,
    ScoreActivation,
    content_digest,
    load_bundle,
)
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.golden import GOLDEN_PAIRS
from nearshore.export.options import ExportOptions
from tests.tiny_bert import write_json
from tests.tiny_cross_encoder import KINDS, export, make_bundle, make_checkpoint, reference_logits

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"
ALONE = [{"path": "", "type": "sentence_transformers.base.modules.Transformer"}]


@pytest.mark.parametrize("kind", KINDS)
def test_golden_pairs_have_the_logits_of_the_network(tmp_path: Path, kind: str) -> None:
    """As an independent forward pass gives them, over pairs of which text, query and both are cut."""
    bundle = make_bundle(tmp_path, kind=kind)
    golden = bundle.golden_pairs()
    assert golden.pairs == GOLDEN_PAIRS
    np.testing.assert_allclose(golden.logits, reference_logits(GOLDEN_PAIRS, kind), atol=2e-5)


@pytest.mark.parametrize(
    ("config", "sentences", "activation"),
    [
        ({}, {}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {}, "identity"),
        ({"sentence_transformers": {"version": "4.1"}}, {}, "sigmoid"),
        ({"sbert_ce_default_activation_function": IDENTITY}, {}, "identity"),
        (
            {"sentence_transformers": {"activation_fn": SIGMOID}, "sbert_ce_default_activation_function": IDENTITY},
            {},
            "sigmoid",
        ),
        ({}, {"activation_fn": IDENTITY}, "identity"),
    ],
)
def test_the_activation_is_that_of_sentence_transformers(
    tmp_path: Path, config: dict[str, Any], sentences: dict[str, Any], activation: ScoreActivation
) -> None:
    """From the newest place that states it, and a sigmoid where none does; it is part of what a score means."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **config)
    write_json(checkpoint / "modules.json", ALONE)
    write_json(checkpoint / "config_sentence_transformers.json", sentences)
    bundle = export(checkpoint, tmp_path / "judge")
    manifest = load_bundle(bundle.path).manifest
    assert manifest.classifier == Classifier(labels=1, activation=activation)
    assert manifest.is_cross_encoder
    usual = make_bundle(tmp_path, "usual").manifest.fingerprint
    assert (manifest.fingerprint == usual) is (activation == "sigmoid")


def test_more_labels_or_a_pooling_make_no_cross_encoder(tmp_path: Path) -> None:
    """Such a bundle gives vectors, as it did, and says how many labels its logits have."""
    several = make_bundle(tmp_path, "several", labels=3)
    checkpoint = make_checkpoint(tmp_path / "pooling")
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(
        checkpoint / "modules.json",
        [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds],
    )
    (checkpoint / "1_Pooling").mkdir()
    write_json(checkpoint / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    pooled = export(checkpoint, tmp_path / "pooled")
    for bundle, labels in ((several, 3), (pooled, 1)):
        assert not bundle.manifest.is_cross_encoder
        assert bundle.manifest.classifier == Classifier(labels=labels)
        assert bundle.golden().vectors.shape[1] == bundle.manifest.dimensions > 1


def test_a_transformer_alone_in_modules_is_a_cross_encoder(tmp_path: Path) -> None:
    """As newer releases of sentence-transformers write cross-encoders."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    write_json(checkpoint / "modules.json", ALONE)
    assert export(checkpoint, tmp_path / "judge").manifest.is_cross_encoder


def test_files_of_sentence_transformers_count_only_with_modules(tmp_path: Path) -> None:
    """Where modules.json is missing, its CrossEncoder reads no other file of its own, so none changes a score."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    plain = export(checkpoint, tmp_path / "plain").manifest
    sentences = {"activation_fn": IDENTITY, "prompts": {"query": "ask: "}, "default_prompt_name": "query"}
    write_json(checkpoint / "config_sentence_transformers.json", sentences)
    write_json(checkpoint / "sentence_bert_config.json", {"max_seq_length": 10, "do_lower_case": True})
    bare = export(checkpoint, tmp_path / "bare").manifest
    assert (bare.fingerprint, bare.max_tokens) == (plain.fingerprint, plain.max_tokens)


def test_another_graph_is_taken_as_it_is(tmp_path: Path) -> None:
    """With the scores that the weights have; one that cannot tell query from text is refused."""
    own = make_bundle(tmp_path)
    checkpoint = tmp_path / ".judge.checkpoint"
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.onnx").write_bytes(own.model_path.read_bytes())
    adopted = export(checkpoint, tmp_path / "adopted")
    assert adopted.manifest.is_cross_encoder
    np.testing.assert_allclose(adopted.golden_pairs().logits, own.golden_pairs().logits, atol=1e-6)
    model = onnx.load_model(checkpoint / "model.onnx")
    zeros = onnx.helper.make_node("Sub", ["input_ids", "input_ids"], ["token_type_ids"])
    model.graph.node.insert(0, zeros)
    del model.graph.input[2]
    onnx.save_model(model, checkpoint / "model.onnx")
    with pytest.raises(UnusableCheckpointError, match="takes no token types"):
        export(checkpoint, tmp_path / "blind")


def test_it_is_used_in_float32_whatever_is_served(tmp_path: Path) -> None:
    """There is no graph in 8 bits of it: asking for one is refused by name, and serving int8 takes float32."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(UnusableCheckpointError, match=r"of which there is no int8 graph.*without --int8"):
        export(checkpoint, tmp_path / "judge", ExportOptions(int8=True))
    bundle = export(checkpoint, tmp_path / "judge")
    assert load_bundle(bundle.path, Precision.INT8).precision is Precision.FP32


@pytest.mark.parametrize(
    ("options", "files", "says"),
    [
        ({"pair": "[CLS] $A $B [SEP]"}, {}, "no special tokens around and between"),
        ({"pair": "[CLS] $A [SEP] $B:2 [SEP]:2"}, {}, "token type 2, the network has 2"),
        ({"max_tokens": 4}, {}, "the shortest pair has 5"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
            {},
            "activation_fn 'torch.nn.modules.activation.Tanh'; supported for scores are Sigmoid and Identity",
        ),
        ({}, {"prompts": {"query": "ask: "}}, "a cross-encoder with prompts is not supported"),
    ],
)
def test_what_would_be_scored_wrongly_is_refused(
    tmp_path: Path, options: dict[str, Any], files: dict[str, Any], says: str
) -> None:
    """By name, and nothing is left behind."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **options)
    write_json(checkpoint / "modules.json", ALONE)
    write_json(checkpoint / "config_sentence_transformers.json", files)
    with pytest.raises(UnusableCheckpointError, match=says):
        export(checkpoint, tmp_path / "judge")
    assert not (tmp_path / "judge").exists()


def test_token_types_that_transformers_would_not_pass_on_are_refused(tmp_path: Path) -> None:
    """A network that was given none scores otherwise with them; where tokenizer.json has none either, all is well."""
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    for pair, refused in (("[CLS] $A [SEP] $B:1 [SEP]:1", True), ("[CLS] $A [SEP] $B [SEP]", False)):
        checkpoint = make_checkpoint(tmp_path / f"checkpoint-{refused}", pair=pair)
        settings = checkpoint / "tokenizer_config.json"
        held = json.loads(settings.read_text()) if settings.exists() else {}
        write_json(settings, held | names)
        if refused:
            with pytest.raises(UnusableCheckpointError, match="model_input_names without token_type_ids"):
                export(checkpoint, tmp_path / "judge")
        else:
            export(checkpoint, tmp_path / "judge")


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """Weights may be finite one by one and overflow together."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["classifier.weight"] = np.full_like(tensors["classifier.weight"], 3e38)
    tensors["pooler.dense.bias"] = np.full_like(tensors["pooler.dense.bias"], 9)
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(UnusableCheckpointError, match="logits that are not finite"):
        export(checkpoint, tmp_path / "judge")


def test_a_manifest_that_neither_pools_nor_scores_is_refused(tmp_path: Path) -> None:
    """Whatever its digest says."""
    bundle = make_bundle(tmp_path)
    content = bundle.manifest.model_dump(mode="json") | {"classifier": {"labels": 1, "activation": None}}
    content["fingerprint"] = bundle.manifest.fingerprint
    content["digest"] = content_digest(content)
    write_json(bundle.path / "bundle.json", content)
    with pytest.raises(CorruptBundleError, match="is not a bundle manifest"):
        load_bundle(bundle.path)
