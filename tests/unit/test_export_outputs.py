"""A bundle gives the outputs that were asked for, by name, and each is what the architecture's head computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file

from nearshore.bundle import Bundle
from nearshore.embedding import Embedder
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from tests.numpy_bert import F64, I64, gelu, gelu_tanh
from tests.numpy_encoders import Tensors, mean, relu, silu
from tests.tiny_bert import embed_golden, make_checkpoint
from tests.tiny_encoders import (
    NARROW,
    RELATIVES,
    H,
    Shapes,
    V,
    edit_config,
    linear,
    norm,
    random_tensors,
    write_checkpoint,
)

TOLERANCE = 2e-5
CLASSES = 3


@dataclass(frozen=True)
class Head:
    """A head's tensors, and its computation: (tensors, last hidden state, mask) to scores."""

    shapes: Shapes
    score: Callable[[Tensors, F64, I64], F64]


def language(
    dense: str, normal: str, bias: str, activation: Callable[[F64], F64], width: int = H, *, biased: bool = True
) -> Head:
    """Dense, activation, normalization, and the table of words once more."""
    shapes = linear(dense, width, H, biased=biased) | norm(normal, width, biased=biased or not bias)
    shapes |= {bias: (V,)} if bias else {}

    def score(tensors: Tensors, hidden: F64, mask: I64) -> F64:
        vectors = tensors.norm(normal, activation(tensors.dense(dense, hidden)))
        words = next(value for name, value in tensors.tensors.items() if value.shape == (V, width) and "embed" in name)
        return vectors @ words.T + (tensors[bias] if bias else 0.0)

    return Head(shapes, score)


LANGUAGE = {
    "bert": language("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
                     "cls.predictions.bias", gelu),
    "roberta": language("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", gelu),
    "distilbert": language("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", relu),
    "electra": language("generator_predictions.dense", "generator_predictions.LayerNorm",
                        "generator_lm_head.bias", gelu, NARROW),
    "albert": language("predictions.dense", "predictions.LayerNorm", "predictions.bias", gelu_tanh, NARROW),
    "mpnet": language("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", gelu),
    "modernbert": language("head.dense", "head.norm", "decoder.bias", gelu, biased=False),
    "nomic_bert": language("cls.predictions.transform.dense", "cls.predictions.transform.layer_norm",
                           "", silu, biased=False),
}  # fmt: skip


def from_pooled(pooler: str) -> Head:
    """The pooler's output, classified."""
    return Head(
        linear(pooler, H, H) | linear("classifier", CLASSES, H),
        lambda tensors, hidden, mask: tensors.dense("classifier", np.tanh(tensors.dense(pooler, hidden[:, 0]))),
    )


def from_first(dense: str, output: str, activation: Callable[[F64], F64]) -> Head:
    """The first token, through a dense layer, classified."""
    return Head(
        linear(dense, H, H) | linear(output, CLASSES, H),
        lambda tensors, hidden, mask: tensors.dense(output, activation(tensors.dense(dense, hidden[:, 0]))),
    )


def modernbert_score(tensors: Tensors, hidden: F64, mask: I64) -> F64:
    return tensors.dense("classifier", tensors.norm("head.norm", gelu(tensors.dense("head.dense", mean(hidden, mask)))))


CLASSIFIER = {
    "bert": from_pooled("pooler.dense"),
    "roberta": from_first("classifier.dense", "classifier.out_proj", np.tanh),
    "distilbert": from_first("pre_classifier", "classifier", relu),
    "electra": from_first("classifier.dense", "classifier.out_proj", gelu),
    "albert": from_pooled("pooler"),
    "mpnet": from_first("classifier.dense", "classifier.out_proj", np.tanh),
    "modernbert": Head(
        linear("head.dense", H, H, biased=False) | norm("head.norm", biased=False) | linear("classifier", CLASSES, H),
        modernbert_score,
    ),
    "nomic_bert": from_pooled("pooler.dense"),
}


def checkpoint(folder: Path, name: str, shapes: Shapes, **config: object) -> Path:
    relative = RELATIVES[name]
    tensors = random_tensors({**relative.shapes, **shapes})
    return write_checkpoint(folder / "checkpoint", {**relative.config, **config}, tensors)


def export(folder: Path, options: ExportOptions) -> Bundle:
    return export_bundle(folder, folder.parent / "bundle", name="tiny", embed_golden=embed_golden, options=options)


def run(bundle: Bundle, ids: I64, mask: I64, types: I64) -> dict[str, Any]:
    """Every output by name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    hub = zip(("input_word_ids", "input_mask", "input_type_ids"), every.values(), strict=True)
    every |= {name: value.astype(np.int32) for name, value in hub}
    names = [each.name for each in session.get_outputs()]
    assert tuple(names) == bundle.manifest.outputs
    assert tuple(each.name for each in session.get_inputs()) == bundle.manifest.inputs
    return dict(zip(names, session.run(names, {name: every[name] for name in bundle.manifest.inputs}), strict=True))


def batch(types: int) -> tuple[I64, I64, I64]:
    """A padded batch."""
    rng = np.random.default_rng(3)
    mask = (np.arange(19) < np.array([[19], [4], [1]])).astype(np.int64)
    return np.where(mask == 1, rng.integers(2, V, mask.shape), 1), mask, rng.integers(0, types, mask.shape)


@pytest.mark.parametrize("name", RELATIVES)
def test_every_hidden_state_and_the_language_head(tmp_path: Path, name: str) -> None:
    """hidden_0 is what enters the first layer, the last is sequence_output; mlm_logits are the head's scores."""
    relative, head = RELATIVES[name], LANGUAGE[name]
    folder = checkpoint(tmp_path, name, head.shapes)
    ids, mask, types = batch(relative.types)
    found = run(export(folder, ExportOptions(all_layers=True, mlm=True)), ids, mask, types)
    tensors = Tensors(load_file(folder / "model.safetensors"), relative.epsilon)
    states = relative.forward(tensors, relative.config, ids, mask, types)
    assert list(found) == ["sequence_output", *(f"hidden_{n}" for n in range(len(states))), "mlm_logits"]
    for number, state in enumerate(states):
        np.testing.assert_allclose(found[f"hidden_{number}"][mask == 1], state[mask == 1], atol=TOLERANCE, rtol=0)
    assert (found["sequence_output"] == found[f"hidden_{len(states) - 1}"]).all()
    expected = head.score(tensors, states[-1], mask)
    np.testing.assert_allclose(found["mlm_logits"][mask == 1], expected[mask == 1], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", RELATIVES)
def test_a_sequence_classifier_gives_logits(tmp_path: Path, name: str) -> None:
    """Without being asked, of as many classes as the checkpoint has, and finite where a text has no real token."""
    relative, head = RELATIVES[name], CLASSIFIER[name]
    pooling = {"classifier_pooling": "mean"} if name == "modernbert" else {}
    folder = checkpoint(tmp_path, name, head.shapes, architectures=["XForSequenceClassification"], **pooling)
    ids, mask, types = batch(relative.types)
    bundle = export(folder, ExportOptions())
    found = run(bundle, ids, mask, types)
    assert list(found) == ["sequence_output", "logits"]
    assert all(np.isfinite(output).all() for output in run(bundle, ids, np.zeros_like(mask), types).values())
    tensors = Tensors(load_file(folder / "model.safetensors"), relative.epsilon)
    hidden = relative.forward(tensors, relative.config, ids, mask, types)[-1]
    np.testing.assert_allclose(found["logits"], head.score(tensors, hidden, mask), atol=TOLERANCE, rtol=0)


def test_only_modernbert_has_a_choice_of_pooling(tmp_path: Path) -> None:
    """BERT's authors' code does not look at classifier_pooling, whatever it says."""
    folder = checkpoint(tmp_path, "bert", CLASSIFIER["bert"].shapes, architectures=["BertForSequenceClassification"])
    plain = export(folder, ExportOptions()).manifest.files["model.onnx"]
    edit_config(folder, classifier_pooling="mean")
    assert export(folder, ExportOptions()).manifest.files["model.onnx"] == plain


def test_outputs_do_not_move_the_fingerprint(tmp_path: Path) -> None:
    """Vectors of two bundles that differ in outputs alone may be compared."""
    folder = checkpoint(tmp_path, "bert", LANGUAGE["bert"].shapes)
    few = export(folder, ExportOptions()).manifest
    many = export(folder, ExportOptions(pooled_output=True, all_layers=True, mlm=True)).manifest
    hub = export(folder, ExportOptions(contract="tfhub")).manifest
    assert few.outputs == ("sequence_output",)
    assert len({few.fingerprint, many.fingerprint, hub.fingerprint}) == 1


@pytest.mark.parametrize("name", CLASSIFIER)
def test_scores_of_a_text_do_not_depend_on_its_company(tmp_path: Path, name: str) -> None:
    """Bit for bit, in runs of one to nineteen texts of one length, wherever it stands in them."""
    config: dict[str, object] = {"architectures": ["TinyForSequenceClassification"], "classifier_pooling": "mean"}
    bundle = export(checkpoint(tmp_path, name, CLASSIFIER[name].shapes, **config), ExportOptions())
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for length in (5, 9, 17, 40):
        ids = rng.integers(5, V, (19, length))
        every = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        given = {each.name: every[each.name] for each in session.get_inputs()}

        def run(rows: slice, given: dict[str, I64] = given) -> bytes:
            (logits,) = session.run(["logits"], {name: values[rows] for name, values in given.items()})
            return bytes(logits.tobytes())

        alone = [run(slice(row, row + 1)) for row in range(19)]
        for count in (2, 3, 5, 8, 16, 19):
            for start in (0, 19 - count):
                assert run(slice(start, start + count)) == b"".join(alone[start : start + count])


def test_the_table_of_words_is_held_once(tmp_path: Path) -> None:
    """The language head uses the table of the embeddings, not a turned copy."""
    folder = checkpoint(tmp_path, "bert", LANGUAGE["bert"].shapes)
    graph = onnx.load(export(folder, ExportOptions(mlm=True)).model_path).graph
    assert sum(list(tensor.dims) in ([V, H], [H, V]) for tensor in graph.initializer) == 1


def test_an_untied_decoder_is_used(tmp_path: Path) -> None:
    """Where the configuration says that words are not tied, the decoder's own weight counts."""
    folder = checkpoint(tmp_path, "bert", LANGUAGE["bert"].shapes | {"cls.predictions.decoder.weight": (V, H)})
    ids, mask, types = batch(2)
    tied = run(export(folder, ExportOptions(mlm=True)), ids, mask, types)
    edit_config(folder, tie_word_embeddings=False)
    untied = run(export(folder, ExportOptions(mlm=True)), ids, mask, types)
    assert (tied["sequence_output"] == untied["sequence_output"]).all()
    assert np.abs(tied["mlm_logits"] - untied["mlm_logits"]).max() > 0.1


DECODER_BIAS = {
    "bert": ("cls.predictions.bias", "cls.predictions.decoder.bias"),
    "roberta": ("lm_head.bias", "lm_head.decoder.bias"),
    "albert": ("predictions.bias", "predictions.decoder.bias"),
    "mpnet": ("lm_head.bias", "lm_head.decoder.bias"),
}


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("name", DECODER_BIAS)
def test_the_bias_of_the_decoder_itself_is_added(tmp_path: Path, name: str, tie: bool) -> None:
    """Where a checkpoint holds another bias beside it, or that of the decoder alone, the decoder's own counts."""
    relative, head = RELATIVES[name], LANGUAGE[name]
    shared, own = DECODER_BIAS[name]
    folder = checkpoint(tmp_path, name, head.shapes | {own: (V,)}, tie_word_embeddings=tie)
    held = load_file(folder / "model.safetensors")
    words = next(value for key, value in held.items() if key.endswith("word_embeddings.weight"))
    held[own.replace(".bias", ".weight")] = words
    ids, mask, types = batch(relative.types)
    expecting = Tensors({**held, shared: held[own]}, relative.epsilon)
    expected = head.score(expecting, relative.forward(expecting, relative.config, ids, mask, types)[-1], mask)
    for tensors in (held, {key: value for key, value in held.items() if key != shared}):
        save_file(tensors, folder / "model.safetensors")
        found = run(export(folder, ExportOptions(mlm=True)), ids, mask, types)
        np.testing.assert_allclose(found["mlm_logits"][mask == 1], expected[mask == 1], atol=TOLERANCE, rtol=0)


def test_the_contract_of_tf_hub(tmp_path: Path) -> None:
    """Its names, its int32 inputs, and encoder_outputs without the embeddings; the numbers are the same."""
    folder = checkpoint(tmp_path, "bert", {})
    ids, mask, types = batch(2)
    ours = run(export(folder, ExportOptions(pooled_output=True, all_layers=True)), ids, mask, types)
    bundle = export(folder, ExportOptions(contract="tfhub"))
    theirs = run(bundle, ids, mask, types)
    assert bundle.manifest.inputs == ("input_word_ids", "input_mask", "input_type_ids")
    pairs = {"default": "pooled_output", "pooled_output": "pooled_output", "sequence_output": "sequence_output"}
    pairs |= {f"encoder_outputs_{n}": f"hidden_{n + 1}" for n in range(3)}
    assert set(theirs) == set(pairs)
    assert all((theirs[name] == ours[pairs[name]]).all() for name in pairs)


def test_a_bundle_of_any_contract_is_served(tmp_path: Path) -> None:
    """The embedder feeds a graph by the names that it has."""
    folder = make_checkpoint(tmp_path / "checkpoint")
    vectors = []
    for contract in ("nearshore", "tfhub"):
        bundle = export(folder, ExportOptions(contract=contract))
        with Embedder.open(bundle, workers=1, max_run_tokens=64, max_queued_tokens=1024) as embedder:
            vectors.append(embedder.embed(["a tree by the river"]).vectors)
    assert (vectors[0] == vectors[1]).all()


REFUSED: dict[str, tuple[str, Shapes, ExportOptions, str]] = {
    "no language head": ("bert", {}, ExportOptions(mlm=True), r"lacks the tensor cls\.predictions\.transform\.dense"),
    "half a language head": (
        "roberta", {"lm_head.bias": (V,)}, ExportOptions(mlm=True), r"lacks the tensor lm_head\.dense\.weight",
    ),
    "no pooler at all": ("distilbert", {}, ExportOptions(pooled_output=True), "distilbert has no head for it"),
    "TF Hub's names without a pooler": ("electra", {}, ExportOptions(contract="tfhub"), "pooled_output is asked for"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_outputs_that_the_checkpoint_cannot_give(tmp_path: Path, case: str) -> None:
    """The error names the output or the missing tensor, and no bundle appears."""
    name, shapes, options, complaint = REFUSED[case]
    with pytest.raises(UnusableCheckpointError, match=complaint):
        export(checkpoint(tmp_path, name, shapes), options)
    assert not (tmp_path / "bundle").exists()


def test_a_classifier_without_its_head_is_refused(tmp_path: Path) -> None:
    """config.json names a sequence classifier, the weights do not hold one."""
    folder = checkpoint(tmp_path, "electra", {}, architectures=["ElectraForSequenceClassification"])
    with pytest.raises(UnusableCheckpointError, match=r"lacks the tensor classifier\.dense\.weight"):
        export(folder, ExportOptions())
