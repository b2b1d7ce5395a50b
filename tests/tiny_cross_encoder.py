"""Tiny random cross-encoders for tests: checkpoints, bundles, and what they compute in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from nearshore.bundle import Bundle
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from tests.numpy_bert import F64
from tests.numpy_encoders import Tensors
from tests.tiny_bert import embed_golden, make_tokenizer, vocabulary, write_json
from tests.tiny_encoders import RELATIVES, H, Shapes, linear, random_tensors, write_checkpoint

Pair = tuple[str, str]
QUERY = "what is a list of words"
PASSAGES = ("a cat", "the list of words", "", "music and water", "a dog and a cat by the river", "the list of words")


@dataclass(frozen=True)
class Kind:
    """One architecture with its head, and how its tokenizer puts two texts together."""

    head: Callable[[int], Shapes]
    score: Callable[[Tensors, F64], F64]  # of the last hidden state
    pair: str  # template of the tokenizer


def _bert_score(tensors: Tensors, hidden: F64) -> F64:
    return tensors.dense("classifier", np.tanh(tensors.dense("pooler.dense", hidden[:, 0])))


def _roberta_score(tensors: Tensors, hidden: F64) -> F64:
    return tensors.dense("classifier.out_proj", np.tanh(tensors.dense("classifier.dense", hidden[:, 0])))


KINDS = {
    "bert": Kind(
        lambda labels: linear("pooler.dense", H, H) | linear("classifier", labels, H),
        _bert_score,
        "[CLS] $A [SEP] $B:1 [SEP]:1",
    ),
    "roberta": Kind(
        lambda labels: linear("classifier.dense", H, H) | linear("classifier.out_proj", labels, H),
        _roberta_score,
        "[CLS] $A [SEP] [SEP] $B [SEP]",
    ),
}


def make_checkpoint(
    folder: Path,
    kind: str = "bert",
    *,
    labels: int = 1,
    seed: int = 0,
    max_tokens: int = 64,
    pair: str | None = None,
    **config: object,
) -> Path:
    """Write a sequence classifier's checkpoint; config: of config.json besides. Returns the folder."""
    relative = RELATIVES[kind]
    tensors = random_tensors({**relative.shapes, **KINDS[kind].head(labels)}, seed=seed)
    stated = {**relative.config, "architectures": ["TinyForSequenceClassification"], **config}
    write_checkpoint(folder, stated, tensors)
    tokenizer = make_tokenizer(vocabulary())
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair or KINDS[kind].pair, special_tokens=special
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": max_tokens})
    return folder


def export(checkpoint: Path, bundle: Path, options: ExportOptions | None = None) -> Bundle:
    """The bundle of a checkpoint, called as its folder."""
    return export_bundle(checkpoint, bundle, name=bundle.name, embed_golden=embed_golden, options=options)


def make_bundle(model_dir: Path, name: str = "judge", kind: str = "bert", **options: Any) -> Bundle:
    """Make a checkpoint (options: see make_checkpoint) beside the bundle and export it to model_dir/name."""
    return export(make_checkpoint(model_dir / f".{name}.checkpoint", kind, **options), model_dir / name)


def reference_logits(
    pairs: Sequence[Pair], kind: str = "bert", *, labels: int = 1, seed: int = 0, max_tokens: int = 64, **_: object
) -> F64:
    """The logits (pairs,) of the model that make_checkpoint writes with these options, in float64, pair by pair."""
    relative, special = RELATIVES[kind], ("[CLS]", "[SEP]")
    tensors = random_tensors({**relative.shapes, **KINDS[kind].head(labels)}, seed=seed)
    table = Tensors(tensors, relative.epsilon)
    tokenizer = make_tokenizer(vocabulary())
    tokenizer.no_padding()
    numbers = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=KINDS[kind].pair, special_tokens=numbers
    )
    tokenizer.enable_truncation(max_tokens, strategy="longest_first")
    tokenizer.encode_special_tokens = True
    rows = []
    for pair in pairs:
        encoding = tokenizer.encode(*pair)
        ids, types = np.array([encoding.ids]), np.array([encoding.type_ids])
        hidden = relative.forward(table, relative.config, ids, np.ones_like(ids), types)[-1]
        rows.append(KINDS[kind].score(table, hidden)[0, 0])
    return np.array(rows)


def sigmoid(logits: F64) -> F64:
    """The logistic function."""
    result: F64 = 1 / (1 + np.exp(-logits))
    return result
