"""A tiny random BERT for tests: a checkpoint in the sentence-transformers layout, and a bundle made from it."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import tokenizers
from safetensors.numpy import save_file

from nearshore.bundle import Bundle, SpecialTokens
from nearshore.export.exporter import export_bundle
from nearshore.export.families import BERT
from nearshore.export.layout import encoder_shapes, pooler_shapes
from nearshore.export.options import ExportOptions
from nearshore.network import Network
from nearshore.records import F32
from tests.numpy_sentences import POOLINGS, dense

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "a an and are as at be by for from has he in is it of on or that the to was were will with not this have but they "
    "can use file text time date string list number data search query server vector index word string python code "
    "what how who when where why red green blue cat dog bird fish tree river mountain city music light water fire"
)


def vocabulary() -> tuple[str, ...]:
    """Special tokens; every printable ASCII character, alone and inside a word; common words and endings."""
    characters = [character for character in string.printable.lower() if not character.isspace()]
    endings = ["##s", "##ing", "##ed", "##er", "##ly"]
    return tuple(
        dict.fromkeys([*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters), *WORDS.split(), *endings])
    )


def make_checkpoint(
    folder: Path,
    *,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    max_tokens: int = 64,
    seed: int = 0,
    config: Mapping[str, object] | None = None,
) -> Path:
    """Write a checkpoint with random weights and a WordPiece tokenizer that splits any ASCII text.

    `config` overrides or adds entries of config.json after the weights are made. Returns the folder.
    """
    words = vocabulary()
    network = Network(
        layers=layers,
        heads=heads,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        vocabulary_size=len(words),
        positions=max(128, max_tokens),
        activation="gelu",
        layer_norm_epsilon=1e-12,
    )
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    save_file(random_tensors(network, seed=seed), folder / "model.safetensors", metadata={"format": "np"})
    write_json(folder / "config.json", {**_config(network), **(config or {})})
    write_json(folder / "modules.json", _modules("Transformer", "Pooling", "Normalize"))
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    write_json(folder / "tokenizer_config.json", {"model_max_length": network.positions})
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n", encoding="utf-8")
    make_tokenizer(words).save(str(folder / "tokenizer.json"))
    return folder


def make_bundle(
    model_dir: Path,
    name: str = "tiny",
    *,
    hidden: int = 32,
    max_tokens: int = 64,
    seed: int = 0,
    special_tokens: SpecialTokens = SpecialTokens.TEXT,
    int8: bool = False,
    sentences: Mapping[str, object] | None = None,
) -> Bundle:
    """Make a checkpoint beside the bundle and export it to model_dir/name.

    sentences: what config_sentence_transformers.json says.
    """
    checkpoint = make_checkpoint(model_dir / f".{name}.checkpoint", hidden=hidden, max_tokens=max_tokens, seed=seed)
    if sentences is not None:
        write_json(checkpoint / "config_sentence_transformers.json", sentences)
    options = ExportOptions(special_tokens=special_tokens, int8=int8)
    return export_bundle(checkpoint, model_dir / name, name=name, embed_golden=embed_golden, options=options)


def corpus(size: int) -> list[str]:
    """Texts of up to some 40 tokens, many of equal length."""
    rng = np.random.default_rng(7)
    words = WORDS.split()
    return [" ".join(rng.choice(words, rng.integers(0, 40))) for _ in range(size)]


def embed_golden(bundle: Bundle, texts: Sequence[str]) -> F32:
    """Embed each text alone, straightforwardly: (texts, dimensions)."""
    manifest = bundle.manifest
    tokenizer: Any = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path))
    tokenizer.enable_truncation(manifest.max_tokens)
    tokenizer.encode_special_tokens = manifest.special_tokens is SpecialTokens.TEXT
    session = ort.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    rows = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        every = feed(ids, np.ones_like(ids))
        hidden = session.run(["sequence_output"], {each.name: every[each.name] for each in session.get_inputs()})[0]
        pooled = [POOLINGS[kind](hidden.astype(np.float64), np.ones(ids.shape)) for kind in manifest.pooling]
        vectors = np.concatenate(pooled, axis=1)
        for number, layer in enumerate(manifest.dense):
            with np.load(bundle.path / "dense.npz") as arrays:
                weight, bias = (arrays[f"{name}{number}"].astype(np.float64) for name in ("weight", "bias"))
            vectors = dense(vectors, weight, bias, layer.activation)
        row = vectors[0]
        rows.append(row / np.linalg.norm(row) if manifest.normalize else row)
    return np.array(rows, dtype=np.float32)


def feed(ids: Any, mask: Any) -> dict[str, Any]:
    """The inputs of a run under nearshore's and TF Hub's names: ids and mask (B, S) int64, one token type."""
    types = np.zeros_like(ids)
    hub = {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}
    hub = {name: value.astype(np.int32) for name, value in hub.items()}
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, **hub}


def random_tensors(network: Network, *, seed: int) -> dict[str, F32]:
    """Random weights of a BertModel with a pooler, of the size of trained ones so that layers do something."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in {**encoder_shapes(BERT, network), **pooler_shapes(BERT, network)}.items():
        center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        scale = 0.1 if len(shape) == 1 else 1.0 / np.sqrt(network.hidden_size)
        tensors[name] = (center + scale * rng.standard_normal([size or 1 for size in shape])).astype(np.float32)
    return tensors


def write_json(path: Path, content: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _config(network: Network) -> dict[str, object]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": network.activation,
        "hidden_size": network.hidden_size,
        "intermediate_size": network.intermediate_size,
        "layer_norm_eps": network.layer_norm_epsilon,
        "max_position_embeddings": network.positions,
        "num_attention_heads": network.heads,
        "num_hidden_layers": network.layers,
        "type_vocab_size": 2,
        "vocab_size": network.vocabulary_size,
    }


def _modules(*kinds: str) -> list[dict[str, object]]:
    return [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]


def make_tokenizer(words: Sequence[str]) -> Any:
    """As BERT's, lower-casing; with truncation and padding set, as in real checkpoints, to be got rid of."""
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer: Any = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=numbers, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, numbers[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer
