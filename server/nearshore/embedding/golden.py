"""The check that this machine computes what the exporting machine computed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import tokenizers

from nearshore.bundle import Bundle, Precision
from nearshore.embedding.errors import ModelMismatchError
from nearshore.embedding.session import Session
from nearshore.embedding.tokenizer import Tokenizer
from nearshore.records import F32

# float32 on another processor rounds differently, by some 1e-6; and where that moves a number across the edge between
# two of 8 bits, by one of 256 steps.
LEAST_COSINE = {Precision.FP32: 0.99999, Precision.INT8: 0.995}


def check_golden(bundle: Bundle, tokenizer: Tokenizer, session: Session) -> None:
    """Embed the golden texts one by one. Raises ModelMismatchError if one is off, CorruptBundleError."""
    golden = bundle.golden()
    tokens = tokenizer.encode(golden.texts)
    vectors = np.concatenate([session.run([one.used_ids]) for one in tokens])
    cosines = _cosines(vectors, golden.vectors)
    worst = int(np.argmin(cosines))  # the first NaN, where there is one
    least = LEAST_COSINE[bundle.precision]
    if not cosines[worst] >= least:
        raise ModelMismatchError(
            model=bundle.manifest.name,
            text=golden.texts[worst],
            cosine=float(cosines[worst]),
            least_cosine=least,
            software=f"onnxruntime {onnxruntime.__version__}, tokenizers {tokenizers.__version__}",
        )


def _cosines(left: F32, right: F32) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    a, b = left.astype(np.float64), right.astype(np.float64)
    cosines: np.ndarray[tuple[int], np.dtype[np.float64]] = np.einsum("ij,ij->i", a, b) / (
        np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    )
    return cosines
