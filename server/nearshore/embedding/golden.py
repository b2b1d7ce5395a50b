"""The check that this machine computes what the exporting machine computed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import tokenizers

from nearshore.bundle import Bundle, Precision, cosines
from nearshore.embedding.errors import ModelMismatchError
from nearshore.embedding.session import Session
from nearshore.embedding.tokenizer import Tokenizer

# float32 on another processor rounds differently, by some 1e-6; and where that moves a number across the edge between
# two of 8 bits, by one of 256 steps.
LEAST_COSINE = {Precision.FP32: 0.99999, Precision.INT8: 0.995}


def check_golden(bundle: Bundle, tokenizer: Tokenizer, session: Session) -> None:
    """Embed the golden texts one by one. Raises ModelMismatchError if one is off, CorruptBundleError."""
    golden = bundle.golden()
    tokens = tokenizer.encode(golden.texts)
    vectors = np.concatenate([session.run([one.used_ids]) for one in tokens])
    found = cosines(vectors, golden.vectors)
    worst = int(np.argmin(found))  # the first NaN, where there is one
    least = LEAST_COSINE[bundle.precision]
    if not found[worst] >= least:
        raise ModelMismatchError(
            model=bundle.manifest.name,
            text=golden.texts[worst],
            cosine=float(found[worst]),
            least_cosine=least,
            software=f"onnxruntime {onnxruntime.__version__}, tokenizers {tokenizers.__version__}",
        )
