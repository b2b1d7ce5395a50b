"""The check that this machine computes what the exporting machine computed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import tokenizers

from nearshore.bundle import Bundle, Precision, cosines
from nearshore.embedding.embeddings import Truncation
from nearshore.embedding.errors import ModelMismatchError, ScoreMismatchError
from nearshore.embedding.pairs import PairCutter
from nearshore.embedding.session import Session
from nearshore.embedding.tokenizer import Tokenizer

# float32 on another processor rounds differently, by some 1e-6; and where that moves a number across the edge between
# two of 8 bits, by one of 256 steps.
LEAST_COSINE = {Precision.FP32: 0.99999, Precision.INT8: 0.995}
MOST_DIFFERENCE = 1e-3  # of a logit in float32, as a share of it where it is more than 1


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
            software=_software(),
        )


def check_golden_pairs(bundle: Bundle, cutter: PairCutter, session: Session) -> None:
    """Score the golden pairs one by one. Raises ScoreMismatchError if one is off, CorruptBundleError."""
    golden = bundle.golden_pairs()
    for (query, text), expected in zip(golden.pairs, golden.logits.tolist(), strict=True):
        (row,) = cutter.cut(query, [text], truncation=Truncation.CUT_END, check_room=lambda _: None).rows
        logit = float(session.score([row])[0][0, 0])
        if not abs(logit - expected) <= MOST_DIFFERENCE * max(1.0, abs(expected)):
            raise ScoreMismatchError(
                model=bundle.manifest.name, text=text, logit=logit, expected=expected, software=_software()
            )


def _software() -> str:
    return f"onnxruntime {onnxruntime.__version__}, tokenizers {tokenizers.__version__}"
