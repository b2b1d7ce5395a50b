"""Sequence classifiers of one label: they score a query and a text that are read together, and give no vectors.

What makes a score of a logit is found where sentence-transformers looks for it. How the two texts are put together says
tokenizer.json alone, as in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers

from nearshore.bundle import Bundle, Classifier, ScoreActivation, SpecialTokens
from nearshore.export.checkpoint import Checkpoint
from nearshore.export.config import read_json
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.golden import GOLDEN_PAIRS
from nearshore.export.graph.outputs import LOGITS, NEARSHORE, TFHUB
from nearshore.export.weights import COMPLETE
from nearshore.records import F32

_ACTIVATIONS: Mapping[str, ScoreActivation] = {"Sigmoid": "sigmoid", "Identity": "identity"}
_SENTENCES, _TOKENIZER = "config_sentence_transformers.json", "tokenizer_config.json"
_TYPES = "token_type_ids"  # as transformers calls them
_KINDS = [None, 0, None, 1, None]  # of the tokens of a pair: special, the query's, special, the text's, special
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def read_classifier(checkpoint: Checkpoint, labels: int) -> Classifier | None:
    """What the manifest says of a graph that gives logits of so many labels; None for 0.

    A checkpoint that says how to pool the vectors of tokens is no cross-encoder, whatever else it holds. Raises
    UnusableCheckpointError.
    """
    if labels == 0:
        return None
    if labels > 1 or checkpoint.modules.stated:
        return Classifier(labels=labels)
    if checkpoint.prompts.texts:
        raise UnusableCheckpointError(
            checkpoint.folder,
            f"{_SENTENCES} has prompts, and a cross-encoder with prompts is not supported",
            "Use a checkpoint without them.",
        )
    return Classifier(labels=labels, activation=_read_activation(checkpoint))


def _read_activation(checkpoint: Checkpoint) -> ScoreActivation:
    """That of sentence-transformers' CrossEncoder: where nothing is stated, one label has a sigmoid."""
    config = checkpoint.files.config
    sentences = {} if checkpoint.bare else read_json(checkpoint.folder, _SENTENCES, optional=True)
    inner = config.get("sentence_transformers")
    stated = [
        (_SENTENCES, "activation_fn", sentences.get("activation_fn")),
        (config.name, "activation_fn", inner.get("activation_fn") if isinstance(inner, dict) else None),
        (config.name, "sbert_ce_default_activation_function", config.get("sbert_ce_default_activation_function")),
    ]
    for file, key, value in stated:
        if value is None:
            continue
        name = str(value).rpartition(".")[2]
        if name not in _ACTIVATIONS or not str(value).startswith("torch.nn."):
            raise UnusableCheckpointError(
                checkpoint.folder,
                f"{file} has {key} {value!r}; supported for scores are {' and '.join(_ACTIVATIONS)} of torch.nn",
                f"If scores without it will do, write torch.nn.modules.linear.Identity into a copy of {file}.",
            )
        return _ACTIVATIONS[name]
    return "sigmoid"


def check_pairing(checkpoint: Checkpoint, tokenizer: str, inputs: tuple[str, ...]) -> None:
    """Raise UnusableCheckpointError unless pairs of texts are put together so that the network can read them.

    tokenizer: as tokenizer.json; inputs: of the graph.
    """
    network = checkpoint.configuration.network
    reader: Any = tokenizers.Tokenizer.from_str(tokenizer)
    pair = reader.encode("a", "a")
    if [kind for kind, _ in groupby(pair.sequence_ids)] != _KINDS:
        detail = f"the tokenizer makes {' '.join(pair.tokens)} of the pair a, a: no special tokens around and between"
        raise UnusableCheckpointError(checkpoint.folder, detail)
    if network.token_types > 1 and not {NEARSHORE.types, TFHUB.types} & set(inputs):
        raise UnusableCheckpointError(
            checkpoint.folder,
            "its model takes no token types, by which its network tells the query from the text",
            "Export the checkpoint's own weights (model.safetensors) instead, or export the ONNX model anew.",
        )
    if network.token_types > 1 and max(pair.type_ids) >= network.token_types:
        detail = f"the tokenizer gives pairs the token type {max(pair.type_ids)}, the network has {network.token_types}"
        raise UnusableCheckpointError(checkpoint.folder, detail)
    if network.token_types > 1 and any(pair.type_ids):
        _check_types_are_wanted(checkpoint.folder)
    least = 2 + pair.sequence_ids.count(None)
    if checkpoint.max_tokens < least:
        detail = f"it takes {checkpoint.max_tokens} tokens, and the shortest pair has {least}"
        raise UnusableCheckpointError(checkpoint.folder, detail)


def _check_types_are_wanted(folder: Path) -> None:
    """Raise UnusableCheckpointError where transformers would keep the tokenizer's token types from the network."""
    wanted = read_json(folder, _TOKENIZER, optional=True).get("model_input_names")
    if isinstance(wanted, list) and _TYPES not in wanted:
        raise UnusableCheckpointError(
            folder,
            f"{_TOKENIZER} has model_input_names without {_TYPES}, but tokenizer.json gives the texts of a pair "
            "different ones",
            f"In a copy, add {_TYPES} to model_input_names if the network was trained with them, or else set each "
            "type_id in the post_processor of tokenizer.json to 0.",
        )


def score_golden(checkpoint: Path, bundle: Bundle) -> F32:
    """The logits of the golden pairs, (pairs, 1), each run alone and cut by the tokenizer's own library.

    Nothing of the engine is used, which has to come to the same. Raises UnusableCheckpointError.
    """
    tokenizer: Any = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path))
    tokenizer.enable_truncation(bundle.manifest.max_tokens, strategy="longest_first")
    tokenizer.encode_special_tokens = bundle.manifest.special_tokens is SpecialTokens.TEXT
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    rows = []
    for query, text in GOLDEN_PAIRS:
        pair = tokenizer.encode(query, text)
        ids, types = np.array([pair.ids]), np.array([pair.type_ids])
        every: dict[str, Any] = {}
        for contract in (NEARSHORE, TFHUB):
            every |= {contract.ids: ids, contract.mask: np.ones_like(ids), contract.types: types}
        feeds = {one.name: every[one.name].astype(_INTEGERS[one.type]) for one in session.get_inputs()}
        rows.append(session.run([LOGITS], feeds)[0])
    logits: F32 = np.concatenate(rows).astype(np.float32)
    if not np.isfinite(logits).all():
        detail = "it gives logits that are not finite: weights are damaged"
        raise UnusableCheckpointError(checkpoint, detail, COMPLETE)
    return logits
