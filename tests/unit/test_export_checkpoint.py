"""Only a complete BERT checkpoint is exported; any other is refused by an error that names what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nearshore.bundle import Bundle, Pooling
from nearshore.embedding.embedder import Embedder
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from tests.tiny_bert import embed_golden, write_json


def export(checkpoint: Path) -> Bundle:
    destination = checkpoint.parent / "bundle"
    return export_bundle(checkpoint, destination, name="tiny", embed_golden=embed_golden)


def edit(file: str, **changes: object) -> Callable[[Path], None]:
    """A change of entries in a JSON file; None removes one."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8")) | changes
        write_json(folder / file, {key: value for key, value in content.items() if value is not None})

    return apply


def write(file: str, content: object) -> Callable[[Path], None]:
    """A JSON file with this content."""
    return lambda folder: write_json(folder / file, content)


def remove(file: str) -> Callable[[Path], None]:
    """A file that is not there."""
    return lambda folder: (folder / file).unlink()


def pipe(file: str) -> Callable[[Path], None]:
    """A pipe in its place, which nobody writes into."""

    def apply(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return apply


def truncate(file: str, share: float) -> Callable[[Path], None]:
    """A file that was cut off."""

    def apply(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(share * len(content))])

    return apply


def retensor(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Tensors with a change made in place."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def enlarge(folder: Path, tokens: int) -> None:
    """A network with so many tokens more than the tokenizer has."""
    table = "embeddings.word_embeddings.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors[table] = np.pad(tensors[table], ((0, tokens), (0, 0)))
    save_file(tensors, folder / "model.safetensors")
    edit("config.json", vocab_size=len(tensors[table]))(folder)


def module(kind: str, path: str = "") -> dict[str, str]:
    """An entry of modules.json."""
    return {"path": path, "type": f"sentence_transformers.models.{kind}"}


QUERY = "encoder.layer.1.attention.self.query.weight"
REFUSED = {
    "another architecture": (edit("config.json", model_type="t5"), "model_type 't5'"),
    "no architecture": (edit("config.json", model_type=None), "model_type None"),
    "a decoder": (edit("config.json", is_decoder=True), "is_decoder True"),
    "relative positions": (edit("config.json", position_embedding_type="relative_key"), "'relative_key'"),
    "unknown activation": (edit("config.json", hidden_act="mish"), "hidden_act 'mish'"),
    "no heads": (edit("config.json", num_attention_heads=None), "config.json lacks num_attention_heads"),
    "heads of no width": (edit("config.json", num_attention_heads=0), "num_attention_heads: .* greater than or equal"),
    "heads that do not divide": (edit("config.json", num_attention_heads=5), "not a multiple of 5 heads"),
    "config missing": (remove("config.json"), "config.json is missing"),
    "config is a pipe": (pipe("config.json"), r"config.json cannot be read \(it is not a regular file\)"),
    "config is no JSON": (truncate("config.json", 0.5), "config.json cannot be read"),
    "config without a bottom": (
        lambda folder: (folder / "config.json").write_text("[" * 99_999), "config.json cannot be read",
    ),
    "config is a list": (write("config.json", []), "config.json is not a JSON dict"),
    "weights missing": (remove("model.safetensors"), "model.safetensors is missing"),
    "weights are a pipe": (pipe("model.safetensors"), "model.safetensors is not a regular file"),
    "weights cut off": (truncate("model.safetensors", 0.7), "model.safetensors cannot be read"),
    "weights empty": (truncate("model.safetensors", 0), "model.safetensors cannot be read"),
    "tensor missing": (retensor(lambda t: t.pop(QUERY)), f"lacks the tensor {QUERY}"),
    "tensor of another shape": (
        retensor(lambda t: t.update({QUERY: t[QUERY][:-1]})),
        rf"{QUERY} has shape \(31, 32\), by the configuration it is \(32, 32\)",
    ),
    "tensor of another type": (
        retensor(lambda t: t.update({QUERY: t[QUERY].astype(np.int8)})),
        f"{QUERY} has type I8",
    ),
    "other weights by the name of PyTorch's": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        r"pytorch_model.bin cannot be read: it is not of torch.save\(\)",
    ),
    "more layers than tensors": (edit("config.json", num_hidden_layers=3), "lacks the tensor encoder.layer.2"),
    "tokenizer missing": (remove("tokenizer.json"), "tokenizer.json is missing"),
    "tokenizer is a pipe": (pipe("tokenizer.json"), r"tokenizer.json cannot be read \(it is not a regular file\)"),
    "tokenizer cut off": (truncate("tokenizer.json", 0.9), "tokenizer.json cannot be read"),
    "tokenizer is no tokenizer": (write("tokenizer.json", {"model": 1}), "tokenizer.json is not a tokenizer"),
    "tokenizer without [CLS] and [SEP]": (edit("tokenizer.json", post_processor=None), r"as \[CLS\] and \[SEP\]"),
    "tokens beyond the network's": (edit("tokenizer.json", added_tokens=[
        {"id": 213, "content": "<extra>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False},
    ]), "has token number 213, the network only 213 tokens"),
    "a tokenizer of another, smaller model": (
        lambda folder: enlarge(folder, 128), "has only 213 tokens, the network 341: more than padding explains",
    ),
    "left truncation": (edit("tokenizer_config.json", truncation_side="left"), "truncates on the left"),
    "more tokens than positions": (edit("sentence_bert_config.json", max_seq_length=129), "max_seq_length is 129"),
    "a limit that is no number": (
        lambda folder: (remove("sentence_bert_config.json")(folder),
                        edit("tokenizer_config.json", model_max_length="long")(folder)),
        "max_seq_length is 'long'",
    ),
    "weights that are no numbers": (
        retensor(lambda t: t[QUERY].fill(np.nan)), f"safetensors: {QUERY} has numbers that are not finite",
    ),
    "one number of a token that few texts have": (
        retensor(lambda t: t["embeddings.word_embeddings.weight"][200].fill(np.inf)),
        "word_embeddings.weight has numbers that are not finite",
    ),
    "weights that no number can hold the products of": (
        retensor(lambda t: t[QUERY].fill(3e38)), "vectors that are not finite",
    ),
    "lower-casing outside the tokenizer": (edit("sentence_bert_config.json", do_lower_case=True), "do_lower_case"),
    "lower-casing that an older name asks for": (
        lambda folder: (remove("sentence_bert_config.json")(folder),
                        write("sentence_xlm-roberta_config.json", {"do_lower_case": True})(folder)),
        "sentence_xlm-roberta_config.json asks for do_lower_case",
    ),
    "a default prompt that there is not": (
        write("config_sentence_transformers.json", {"prompts": {"a": "b"}, "default_prompt_name": "query"}),
        "default_prompt_name 'query' is none of its prompts",
    ),
    "prompts that are no texts":
        (write("config_sentence_transformers.json", {"prompts": {"query": 7}}), "prompts are not texts by name"),
    "prompts without names":
        (write("config_sentence_transformers.json", {"prompts": ["query: "]}), "prompts are not texts by name"),
    "a prompt without room for text":
        (write("config_sentence_transformers.json", {"prompts": {"query": "a " * 62}}),
         "'query' has 64 tokens, and the model takes 64 in all"),
    "a module that is not known": (write("modules.json", [module("Transformer"), module("LSTM")]), "asks for .*LSTM"),
    "a dense layer before pooling": (
        write("modules.json", [module("Transformer"), module("Dense", "1_Dense"), module("Pooling", "2_Pooling")]),
        "has Transformer, Dense, Pooling; supported is",
    ),
    "transformer in a subfolder": (write("modules.json", [module("Transformer", "0_BERT")]), "lies in '0_BERT'"),
    "pooling of no kind": (edit("1_Pooling/config.json", pooling_mode_mean_tokens=False), r"asks for \[\]"),
    "unknown pooling": (edit("1_Pooling/config.json", pooling_mode="median"), r"asks for \['median'\], supported are"),
    "unknown pooling beside a known one": (edit("1_Pooling/config.json", pooling_mode=["cls", ["max"]]), "asks for"),
    "an unknown switch": (edit("1_Pooling/config.json", pooling_mode_median=True), "'pooling_mode_median'"),
    "pooling that is no name": (edit("1_Pooling/config.json", pooling_mode=7), "asks for 7"),
    "no pooling": (write("modules.json", [module("Transformer"), module("Normalize")]), "has Transformer, Normalize;"),
    "pooling in a pipe": (pipe("1_Pooling/config.json"), r"1_Pooling/config.json cannot be read \(it is not a reg"),
    "no modules": (write("modules.json", []), "modules.json has nothing; supported is Transformer, Pooling"),
    "modules that are none": (write("modules.json", ["Pooling", 7]), "asks for Pooling"),
    "a dense layer after normalization": (
        write("modules.json", [module("Transformer"), module("Pooling", "1_Pooling"), module("Normalize"),
                               module("Dense", "3_Dense")]),
        "has Transformer, Pooling, Normalize, Dense; supported is",
    ),
    "normalization before pooling": (
        write("modules.json", [module("Transformer"), module("Normalize"), module("Pooling", "1_Pooling")]),
        "has Transformer, Normalize, Pooling; supported is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_it_cannot_export(checkpoint: Path, name: str) -> None:
    """The error names the file and what is wrong with it, and no bundle appears."""
    change, complaint = REFUSED[name]
    change(checkpoint)
    with pytest.raises(UnusableCheckpointError, match=complaint) as caught:
        export(checkpoint)
    assert caught.value.reason == "CHECKPOINT_UNUSABLE"
    assert not (checkpoint.parent / "bundle").exists()


@pytest.mark.parametrize("file", ["README.md", "nearshore-origin.json"])
def test_waits_for_no_pipe_in_place_of_a_note(checkpoint: Path, file: str) -> None:
    """What no vector depends on, and cannot be read, is taken for absent."""
    pipe(file)(checkpoint)
    manifest = export(checkpoint).manifest
    assert (manifest.license == "unknown", manifest.source.kind) == (file == "README.md", "folder")


def switches(*names: str) -> dict[str, object]:
    """A pooling configuration with these switches on, and all others off, in the order of sentence-transformers."""
    every = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {"word_embedding_dimension": 32, **{f"pooling_mode_{name}": name in names for name in every}}


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (switches("cls_token"), ["cls"]),
        (switches("max_tokens"), ["max"]),
        (switches("mean_tokens") | {"include_prompt": True}, ["mean"]),
        (switches("mean_sqrt_len_tokens"), ["mean_sqrt_len"]),
        (switches("weightedmean_tokens"), ["weighted_mean"]),
        (switches("lasttoken"), ["last_token"]),
        (switches("mean_tokens", "max_tokens", "cls_token"), ["cls", "max", "mean"]),
        (switches("lasttoken", "weightedmean_tokens"), ["weighted_mean", "last_token"]),
        (switches("mean_tokens") | {"pooling_mode": "cls"}, ["cls"]),
        ({"embedding_dimension": 32, "pooling_mode": "mean_sqrt_len_tokens"}, ["mean_sqrt_len"]),
        ({"embedding_dimension": 32, "pooling_mode": ["mean", "cls"], "include_prompt": True}, ["mean", "cls"]),
    ],
)
def test_reads_every_spelling_of_pooling(checkpoint: Path, config: dict[str, object], pooling: list[str]) -> None:
    """Old and new pooling configurations of sentence-transformers mean the same; several kinds make longer vectors."""
    write_json(checkpoint / "1_Pooling" / "config.json", config)
    bundle = export(checkpoint)
    assert (list(bundle.manifest.pooling), bundle.manifest.dimensions) == (pooling, 32 * len(pooling))
    with Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1000) as embedder:
        vectors = embedder.embed(["how do fish swim"]).vectors
    np.testing.assert_allclose(vectors, embed_golden(bundle, ["how do fish swim"]), atol=1e-5)


def test_reads_prompts(checkpoint: Path) -> None:
    """Prompts and the default are taken; where all are empty, as newer releases write, they move no fingerprint."""
    plain = export(checkpoint).manifest
    assert (plain.prompts, plain.default_prompt) == ({}, None)
    say = partial(write_json, checkpoint / "config_sentence_transformers.json")
    say({"prompts": {"query": "", "document": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"})
    assert export(checkpoint).manifest == plain
    say({"prompts": {"query": "", "document": ""}, "default_prompt_name": "query"})
    assert export(checkpoint).manifest == plain
    say({"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": None})
    queries = export(checkpoint).manifest
    assert (queries.prompts, queries.default_prompt) == ({"query": "query: ", "document": ""}, None)
    say({"prompts": {"query": "query: "}, "default_prompt_name": "query"})
    default = export(checkpoint).manifest
    assert default.default_prompt == "query"
    assert len({each.fingerprint for each in (plain, queries, default)}) == 3


def test_a_plain_encoder_is_pooled_by_mean(checkpoint: Path) -> None:
    """Without modules.json and sentence_bert_config.json, the defaults of sentence-transformers hold."""
    for file in ("modules.json", "sentence_bert_config.json", "README.md"):
        (checkpoint / file).unlink()
    manifest = export(checkpoint).manifest
    assert (manifest.pooling, manifest.normalize, manifest.max_tokens) == ((Pooling.MEAN,), False, 128)
    assert manifest.license == "unknown"


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_reads_the_names_of_older_sentence_transformers(checkpoint: Path, kind: str) -> None:
    """The limit of tokens holds under each name that sentence-transformers looks for."""
    (checkpoint / "sentence_bert_config.json").rename(checkpoint / f"sentence_{kind}_config.json")
    assert export(checkpoint).manifest.max_tokens == 64


def test_the_first_name_counts(checkpoint: Path) -> None:
    """As sentence-transformers looks for it, whatever an older file says."""
    write_json(checkpoint / "sentence_xlnet_config.json", {"max_seq_length": 9, "do_lower_case": True})
    assert export(checkpoint).manifest.max_tokens == 64


def test_reads_the_names_of_other_conversions(checkpoint: Path) -> None:
    """Tensors of BertForX (bert.*) with TensorFlow's gamma and beta give the same graph."""
    expected = export(checkpoint).manifest.files["model.onnx"]
    tensors = load_file(checkpoint / "model.safetensors")
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    save_file({**renamed, "cls.predictions.bias": np.zeros(3, np.float32)}, checkpoint / "model.safetensors")
    assert export(checkpoint).manifest.files["model.onnx"] == expected


def test_a_padded_table_of_words_is_taken(checkpoint: Path) -> None:
    """Tables are often padded to a round size for speed; no token has those rows."""
    enlarge(checkpoint, 127)
    export(checkpoint)


def test_half_precision_weights_are_widened(checkpoint: Path) -> None:
    """A float16 checkpoint is exported as float32."""
    tensors = load_file(checkpoint / "model.safetensors")
    save_file({name: value.astype(np.float16) for name, value in tensors.items()}, checkpoint / "model.safetensors")
    bundle = export(checkpoint)
    assert bundle.golden().vectors.dtype == np.float32
