"""What a caller may ask of vectors that moves what they mean; without a wish it is as the bundle says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearshore.bundle import Manifest, SpecialTokens
from nearshore.embedding.pooling import normalize
from nearshore.records import F32


@dataclass(frozen=True, slots=True)
class Form:
    """How texts become vectors, as far as one request may choose it; None: as the bundle says."""

    special: SpecialTokens | None = None  # how text that spells a special token is read
    dimensions: int | None = None  # the first so many components, 1 to the model's; None: all
    normalize: bool | None = None  # to unit length

    def of(self, vectors: F32, manifest: Manifest) -> F32:
        """Bring what a session gives, (texts, dimensions) float32, into this form.

        It is cut before it is normalized, so that a cut vector has unit length too. Row by row: no bit of a vector
        depends on its company.
        """
        kept = np.ascontiguousarray(vectors[:, : self.dimensions])
        normalizing = manifest.normalize if self.normalize is None else self.normalize
        return normalize(kept) if normalizing else kept


AS_BUNDLED = Form()
