"""A BERT from TensorFlow, of whatever generation, gives the graph of the same BERT from Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from nearshore.bundle import Bundle
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.obtain import obtain
from nearshore.export.options import ExportOptions
from nearshore.records import F32
from tests.tensor_bundle import field, tf1_variables, tf2_variables, write_bundle, write_tf2
from tests.tiny_bert import embed_golden, vocabulary, write_json
from tests.tiny_encoders import HEADS, RELATIVES, H, V, linear, norm, random_tensors, write_checkpoint

CONFIG = {key: value for key, value in RELATIVES["bert"].config.items() if key not in {"model_type", "layer_norm_eps"}}
LANGUAGE = {
    **linear("cls.predictions.transform.dense", H, H),
    **norm("cls.predictions.transform.LayerNorm"),
    "cls.predictions.bias": (V,),
}
TENSORS = random_tensors({**RELATIVES["bert"].shapes, **LANGUAGE})
ALL = ExportOptions(pooled_output=True, mlm=True)
HUB = ExportOptions(contract="tfhub", mlm=True)


def write_files(folder: Path, **files: str) -> None:
    """vocab.txt and bert_config.json."""
    write_json(folder / "bert_config.json", CONFIG)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")


def tf1(folder: Path, tensors: dict[str, F32] = TENSORS, *, shards: int = 1) -> Path:
    write_bundle(folder, "bert_model.ckpt", tf1_variables(tensors), shards=shards)
    write_files(folder)
    return folder


def tf2(folder: Path, tensors: dict[str, F32] = TENSORS) -> Path:
    write_tf2(folder, "bert_model.ckpt-1", tf2_variables(tensors, HEADS))
    write_files(folder)
    return folder


def note(**encoder: object) -> bytes:
    """A note of Keras about an encoder inside a model, whose optimizer has an epsilon of its own."""
    settings = {"num_layers": 3, "num_attention_heads": HEADS, "norm_epsilon": 1e-12, **encoder}
    layer_norm = {"class_name": "LayerNormalization", "config": {"epsilon": 1e-12}}
    encoder_layer = {"class_name": "Text>BertEncoder", "config": settings}
    layers = [{"class_name": "InputLayer", "config": {}}, layer_norm, encoder_layer]
    optimizer = {"class_name": "Adam", "config": {"epsilon": 1e-7}}
    return json.dumps({"class_name": "Functional", "config": {"layers": layers}, "optimizer": optimizer}).encode()


def saved_model(folder: Path, *, older: bool = False, **encoder: object) -> Path:
    encoder = encoder or {"inner_activation": "Text>gelu"}
    write_tf2(folder, "variables/variables", tf2_variables(TENSORS, HEADS))
    (folder / "assets").mkdir()
    (folder / "assets" / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    objects = field(1, field(4, field(1, b"_tf_keras_model") + field(3, note(**encoder)))) if older else b""
    (folder / "saved_model.pb").write_bytes(field(1, 1) + field(2, field(7, objects)))
    if not older:
        nodes = field(1, field(2, 3) + field(5, b"not JSON")) + field(1, field(2, 4) + field(5, note(**encoder)))
        (folder / "keras_metadata.pb").write_bytes(nodes)
    return folder


def hugging_face(folder: Path, activation: str) -> Path:
    return write_checkpoint(folder, {**RELATIVES["bert"].config, "hidden_act": activation}, TENSORS)


def export(folder: Path, options: ExportOptions) -> Bundle:
    return export_bundle(folder, folder.parent / "bundle", name="tiny", embed_golden=embed_golden, options=options)


def graph(folder: Path, options: ExportOptions) -> str:
    """The digest of the exported graph."""
    return export(folder, options).manifest.files["model.onnx"]


@pytest.mark.parametrize("shards", [1, 3])
def test_tensorflow_1_is_bert_as_published(tmp_path: Path, shards: int) -> None:
    """Its checkpoint, in one file or several, gives the graph of the same tensors, with the exact GELU."""
    expected = graph(hugging_face(tmp_path / "hf", "gelu"), ALL)
    assert graph(tf1(tmp_path / "tf1", shards=shards), ALL) == expected


@pytest.mark.parametrize("make", [tf1, tf2, saved_model])
def test_a_tf_hub_encoder_approximates_gelu(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Under TF Hub's contract each generation gives what TensorFlow's tools make of it: GELU by tanh."""
    expected = graph(hugging_face(tmp_path / "hf", "gelu_new"), HUB)
    assert graph(make(tmp_path / "tensorflow"), HUB) == expected


def test_tensorflow_2_approximates_gelu_under_any_contract(tmp_path: Path) -> None:
    """What its own layers compute does not depend on how outputs are called."""
    assert graph(tf2(tmp_path / "tf2"), ALL) == graph(hugging_face(tmp_path / "hf", "gelu_new"), ALL)


def test_a_saved_model_of_an_older_keras(tmp_path: Path) -> None:
    """Its notes are in saved_model.pb, under older names."""
    older = saved_model(tmp_path / "older", older=True, activation="gelu")
    assert graph(older, HUB) == graph(saved_model(tmp_path / "newer"), HUB)


def test_names_in_front_do_not_matter(tmp_path: Path) -> None:
    """A program of TensorFlow 2 may put the name of its model before every variable."""
    variables = {f"my_encoder/{name}": value for name, value in tf2_variables(TENSORS, HEADS).items()}
    write_tf2(tmp_path / "named", "model", variables)
    write_files(tmp_path / "named")
    assert graph(tmp_path / "named", ALL) == graph(tf2(tmp_path / "plain"), ALL)


def test_a_tensorflow_folder_is_obtained_and_its_source_recorded(tmp_path: Path) -> None:
    """It is used where it is, and the digest covers index and data."""
    folder = obtain("mine", tf1(tmp_path / "tf1"), tmp_path / "cache")
    first = export(folder, ALL).manifest
    assert (first.source.kind, first.source.location, first.architecture) == ("folder", "tf1", "bert")
    other = tf1(tmp_path / "other", {**TENSORS, "pooler.dense.bias": TENSORS["pooler.dense.bias"] + 1})
    assert export(other, ALL).manifest.source.sha256 != first.source.sha256


def test_of_several_checkpoints_the_newest_is_taken(tmp_path: Path) -> None:
    """The file `checkpoint` says which; without it the error lists them."""
    folder = tf1(tmp_path / "tf1")
    write_bundle(folder, "model.ckpt-9", {"global_step": np.int64(9)})
    with pytest.raises(UnusableCheckpointError, match=r"several checkpoints \(bert_model\.ckpt, model\.ckpt-9\)"):
        export(folder, ALL)
    (folder / "checkpoint").write_text('model_checkpoint_path: "/somewhere/bert_model.ckpt"\n')
    export(folder, ALL)


# --- the tokenizer


def encode(bundle: Bundle, text: str) -> list[str]:
    tokens: list[str] = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path)).encode(text).tokens
    return tokens


def test_the_tokenizer_is_berts(tmp_path: Path) -> None:
    """A vocabulary without capitals lower-cases and strips accents; pairs have types."""
    bundle = export(tf1(tmp_path / "tf1"), ALL)
    assert encode(bundle, "A DOG, café") == ["[CLS]", "a", "dog", ",", "c", "##a", "##f", "##e", "[SEP]"]
    tokenizer: Any = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path))
    assert tokenizer.encode("a dog", "in the city").type_ids == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(("lower_case", "expected"), [(None, "[UNK]"), (True, "a"), (False, "[UNK]")])
def test_capitals_in_the_vocabulary_mean_that_case_counts(
    tmp_path: Path, lower_case: bool | None, expected: str
) -> None:
    """Unless the caller says otherwise; lines may end as on Windows."""
    folder = tf1(tmp_path / "tf1")
    words = ["Dog" if word == "dog" else word for word in vocabulary()]
    (folder / "vocab.txt").write_bytes("\r\n".join(words).encode())
    bundle = export(folder, ExportOptions(lower_case=lower_case))
    assert encode(bundle, "A Dog")[1] == expected


def test_a_hugging_face_folder_may_have_a_vocabulary_only(tmp_path: Path) -> None:
    """As published before there was tokenizer.json; tokenizer_config.json says whether case counts."""
    folder = hugging_face(tmp_path / "hf", "gelu")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(vocabulary()))
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False})
    assert encode(export(folder, ExportOptions()), "A dog")[1] == "[UNK]"


# --- what is refused


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A file with other bytes."""

    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def without(name: str) -> Callable[[Path], None]:
    """A checkpoint of TensorFlow 1 that lacks a tensor."""

    def apply(folder: Path) -> None:
        write_bundle(folder, "bert_model.ckpt", tf1_variables({k: v for k, v in TENSORS.items() if k != name}))

    return apply


def with_variable(name: str) -> Callable[[Path], None]:
    """A checkpoint of TensorFlow 1 with a variable more."""

    def apply(folder: Path) -> None:
        write_bundle(folder, "bert_model.ckpt", {**tf1_variables(TENSORS), name: np.zeros(3, np.float32)})

    return apply


def write_short_graph(folder: Path) -> None:
    """A checkpoint of TensorFlow 2 whose graph of objects is longer than it says."""
    write_bundle(folder, "bert_model.ckpt-1", {"x": np.zeros(1, np.float32)}, objects=b"123456789")
    rewrite(TF2_DATA, lambda raw: raw[:4] + b"\x08" + raw[5:])(folder)


OTHER_NORM = b'{"class_name": "LayerNormalization", "config": {"epsilon": 0.001}}'
INDEX, DATA = "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"
TF2_DATA = "bert_model.ckpt-1.data-00000-of-00001"
REFUSED: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None], str]] = {
    "a data file missing": (
        lambda folder: tf1(folder, shards=2), remove("bert_model.ckpt.data-00001-of-00002"),
        r"bert_model\.ckpt\.data-00001-of-00002 is missing",
    ),
    "data cut off": (tf1, rewrite(DATA, lambda raw: raw[:-50]), r"data-00000-of-00001 is cut off: \S+ lies beyond"),
    "an index cut off": (tf1, rewrite(INDEX, lambda raw: raw[:-50]), r"index cannot be read \(it does not end as"),
    "an empty index": (tf1, rewrite(INDEX, lambda raw: b""), r"index cannot be read"),
    "an index with a wrong bit": (
        tf1, rewrite(INDEX, lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:]), "checksum of a block is wrong",
    ),
    "no vocabulary": (tf1, remove("vocab.txt"), r"vocab\.txt is missing"),
    "no configuration": (tf2, remove("bert_config.json"), r"bert_config\.json is missing"),
    "a vocabulary without [MASK]": (
        tf1, rewrite("vocab.txt", lambda raw: raw.replace(b"[MASK]", b"[M]")), r"vocab\.txt lacks \[MASK\]",
    ),
    "a word twice": (tf1, rewrite("vocab.txt", lambda raw: raw.replace(b"\ndog", b"\ncat")), "has 1 words twice"),
    "a vocabulary of more words": (
        tf1, rewrite("vocab.txt", lambda raw: raw + b"zebra\n"), f"token number {V}, the network only {V} tokens",
    ),
    "a variable missing": (tf1, without("pooler.dense.bias"), r"lacks the tensor pooler\.dense\.bias"),
    "a variable that nobody knows": (
        tf1, with_variable("bert/encoder/layer_0/adapter/kernel"), r"a tensor encoder\.layer\.0\.adapter\.weight",
    ),
    "other heads than the configuration says": (
        tf2, rewrite("bert_config.json", lambda raw: raw.replace(b'_heads": 4', b'_heads": 2')),
        "num_attention_heads 2, the weights have 4",
    ),
    "normalization first": (
        lambda folder: saved_model(folder, inner_activation="gelu", norm_first=True), lambda folder: None, "norm_first",
    ),
    "another epsilon": (
        lambda folder: saved_model(folder, inner_activation="gelu", norm_epsilon=1e-6), lambda folder: None,
        "an epsilon of 1e-06, only 1e-12 is supported",
    ),
    "another epsilon of one normalization": (
        saved_model, rewrite("keras_metadata.pb", lambda raw: raw + field(1, field(5, OTHER_NORM))), "epsilon of 0.001",
    ),
    "no activation": (
        lambda folder: saved_model(folder, inner_dim=1), lambda folder: None, "says which activation its encoder has",
    ),
    "a note without a bottom": (
        saved_model, rewrite("keras_metadata.pb", lambda raw: field(1, field(5, b"[" * 99_999))), "cannot be read",
    ),
    "another SavedModel": (
        saved_model, lambda folder: write_tf2(folder, "variables/variables", {"dense/kernel": np.zeros((2, 2), "f4")}),
        r"variables\.index has no variable for embeddings\.word_embeddings",
    ),
    "an object graph that is none": (
        tf2, lambda folder: write_bundle(folder, "bert_model.ckpt-1", {"x": np.zeros(1, "f4")}, objects=b"\xff" * 9),
        "OBJECT_GRAPH cannot be read",
    ),
    "an object graph with a wrong bit": (
        tf2, rewrite(TF2_DATA, lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])),
        r"OBJECT_GRAPH cannot be read \(its checksum is wrong\)",
    ),
    "an object graph of another length": (
        tf2, write_short_graph, r"OBJECT_GRAPH cannot be read \(its length is wrong\)",
    ),
    "a weight with a wrong bit": (
        tf1, rewrite(DATA, lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:]),
        "is damaged: the checksum of bert/embeddings/LayerNorm/beta is wrong",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_it_cannot_read(tmp_path: Path, case: str) -> None:
    """The error names the file or the variable, says what to do, and no bundle appears."""
    make, change, complaint = REFUSED[case]
    folder = make(tmp_path / "checkpoint")
    change(folder)
    with pytest.raises(UnusableCheckpointError, match=complaint) as caught:
        export(folder, ALL)
    assert caught.value.remedy
    assert not (tmp_path / "bundle").exists()
