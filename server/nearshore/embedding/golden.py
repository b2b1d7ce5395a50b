"""The check that this machine computes what the exporting machine computed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import tokenizers

from nearshore.bundle import Bundle
from nearshore.embedding.errors import ModelMismatchError
from nearshore.embedding.session import Session
from nearshore.embedding.tokenizer import Tokenizer
from nearshore.records import F32

LEAST_COSINE = 0.99999  # float32 on another processor rounds differently, by some 1e-6


def check_golden(bundle: Bundle, tokenizer: Tokenizer, session: Session) -> None:
    """Embed the golden texts one by one. Raises ModelMismatchError if one is off, CorruptBundleError."""
    golden = bundle.golden()
    tokens = tokenizer.encode(golden.texts)
    vectors = np.concatenate([session.run([one.used_ids]) for one in tokens])
    cosines = _cosines(vectors, golden.vectors)
    worst = int(np.argmin(cosines))  # the first NaN, where there is one
    if not cosines[worst] >= LEAST_COSINE:
        raise ModelMismatchError(
            model=bundle.manifest.name,
            text=golden.texts[worst],
            cosine=float(cosines[worst]),
            least_cosine=LEAST_COSINE,
            software=f"onnxruntime {onnxruntime.__version__}, tokenizers {tokenizers.__version__}",
        )


def _cosines(left: F32, right: F32) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    a, b = left.astype(np.float64), right.astype(np.float64)
    cosines: np.ndarray[tuple[int], np.dtype[np.float64]] = np.einsum("ij,ij->i", a, b) / (
        np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    )
    return cosines
