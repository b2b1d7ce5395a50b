"""The ONNX session: token ids of equal count in, one vector a text, or one score a pair, out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from nearshore.bundle import Bundle, CorruptBundleError
from nearshore.embedding.dense import apply_dense
from nearshore.embedding.pairs import I64, unfold
from nearshore.embedding.pooling import pool
from nearshore.embedding.processor import overflows
from nearshore.records import F32

# What each input takes, by its name in nearshore's and in TF Hub's graphs; token types are 0 for a single text.
_IDS, _MASK, _TYPES = range(3)
_ROLES = {
    "input_ids": _IDS, "attention_mask": _MASK, "token_type_ids": _TYPES,
    "input_word_ids": _IDS, "input_mask": _MASK, "input_type_ids": _TYPES,
}  # fmt: skip
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Session:
    """One ONNX Runtime session for any number of threads: each run computes in the thread that calls it."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the graph and the layers behind it. Raises CorruptBundleError when ONNX Runtime refuses it."""
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model_path, _options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library's exceptions have no common base
            raise CorruptBundleError(bundle.path, f"ONNX Runtime cannot load the graph ({error})") from error
        self._manifest = bundle.manifest
        self._dense = bundle.dense()
        inputs = self._session.get_inputs()
        if any(one.name not in _ROLES or one.type not in _INTEGERS for one in inputs):
            takes = ", ".join(f"{one.name} {one.type}" for one in inputs)
            raise CorruptBundleError(bundle.path, f"its graph takes {takes}, which this nearshore does not know")
        self._inputs = tuple((one.name, _ROLES[one.name], _INTEGERS[one.type]) for one in inputs)

    def run(self, texts: Sequence[Sequence[int]]) -> F32:
        """Embed texts of one token count.

        texts: B lists of T ids. Returns (B, dimensions) float32, not normalized.
        """
        return self.embed(texts)[0]

    def embed(self, texts: Sequence[Sequence[int]]) -> tuple[F32, F32]:
        """As run(), and beside it the vectors of all tokens that it was made of, as run_tokens() gives them."""
        hidden = self.run_tokens(texts)
        return apply_dense(pool(hidden, self._manifest.pooling), self._dense), hidden

    def run_tokens(self, texts: Sequence[Sequence[int]]) -> F32:
        """The vectors of all tokens, (B, T, H) float32, of B lists of T ids."""
        ids = np.array(texts, dtype=np.int64)  # (B, T)
        hidden: F32 = self._session.run(["sequence_output"], self._feeds(ids, np.zeros_like(ids)))[0]
        return hidden

    def score(self, pairs: Sequence[Sequence[int]]) -> tuple[F32, F32]:
        """The logits (B, 1) of pairs of one token count, and the vectors of their tokens (B, T, H), both float32.

        pairs: B rows of T numbers, as PairCutter makes them. The head is part of the graph: weights that are constant
        ONNX Runtime packs at the start, and their product with a row does not depend on how many rows there are.
        """
        feeds = self._feeds(*unfold(pairs, self._manifest.network.vocabulary_size))
        logits, hidden = self._session.run(["logits", "sequence_output"], feeds)
        return logits, hidden

    def _feeds(self, ids: I64, types: I64) -> dict[str, npt.NDArray[np.integer[Any]]]:
        values = (ids, np.ones_like(ids), types)
        return {name: values[role].astype(kind, copy=False) for name, role, kind in self._inputs}


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Patterns are remembered for every input shape, of which there are thousands here.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    # Has ONNX Runtime take a way round the overflow, of half the speed, and it does so on every processor.
    options.add_session_config_entry("session.x64quantprecision", "1" if overflows() else "0")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options
