"""The approximate index: HNSW over 8-bit codes, immutable once built.

HNSW: Malkov and Yashunin, https://arxiv.org/abs/1603.09320; FAISS's IndexHNSWSQ. FAISS numbers its rows as the segment
does. Adding to an index that is being searched crashes the process, so growth goes into a clone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np
import numpy.typing as npt

from nearshore.index.errors import CorruptIndexError
from nearshore.records import F32, Metric

I64 = npt.NDArray[np.int64]
faiss: Any = typed_faiss  # its stubs lack half of what it has
LINKS = 32
"""Neighbours a node keeps on upper levels; twice as many on the lowest."""
_EF_CONSTRUCTION = 40
TRAINING_ROWS = 65_536
_CHUNK_ROWS = 1_000
_MARGIN = 0.25
"""Share of the trained range that the 8-bit codes cover beyond either end of it, for rows unlike the trained ones.

Trained on one of four sources of real text, the codes clip 0.01% of the others' components with it, 0.1% without.
"""
_MAX_CLIPPED_SHARE = 0.01
"""Components beyond the codes' range that are borne: 1% cost 0.01 of recall, 60% cost 0.18 (measured)."""


def index_bytes(row_count: int, dimensions: int) -> int:
    """Memory of an index of so many rows: codes, links, and each node's level and offset."""
    return row_count * (dimensions + 4 * 2 * LINKS + 4 * LINKS // 16 + 16)


def never() -> bool:
    """For builds that nobody cancels."""
    return False


class BuildCancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A build was cancelled before it was done."""


def raise_if(cancelled: Callable[[], bool]) -> None:
    """Raise BuildCancelled when cancelled() is true."""
    if cancelled():
        raise BuildCancelled


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """Rows 0 to row_count - 1 in a graph. Any number of threads may search it."""

    index: Any  # faiss.IndexHNSWSQ
    row_count: int

    @classmethod
    def build(cls, vectors: F32, metric: Metric, cancelled: Callable[[], bool] = never) -> Sealed:
        """Train on a random sample of all of vectors (n, d), n at least 1, then add them.

        Raises BuildCancelled soon after cancelled() turns true.
        """
        faiss.omp_set_num_threads(1)
        faiss_metric = faiss.METRIC_L2 if metric is Metric.EUCLIDEAN else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(vectors.shape[1], f"HNSW{LINKS},SQ8", faiss_metric)
        index.hnsw.efConstruction = _EF_CONSTRUCTION
        faiss.downcast_index(index.storage).sq.rangestat_arg = _MARGIN
        index.train(_sample(vectors))
        return cls._added(index, vectors, cancelled)

    def covers(self, vectors: F32) -> bool:
        """Whether the codes can tell vectors (m, d) apart: nearly all their components lie in the range trained on."""
        trained = faiss.vector_to_array(faiss.downcast_index(self.index.storage).sq.trained)
        least, width = trained.reshape(2, -1)
        sample = _sample(vectors)
        outside = np.count_nonzero(sample < least) + np.count_nonzero(sample > least + width)
        return bool(outside <= _MAX_CLIPPED_SHARE * sample.size)

    def extend(self, vectors: F32, cancelled: Callable[[], bool] = never) -> Sealed:
        """A clone that holds vectors (m, d) as well, rows row_count to row_count + m - 1. Raises BuildCancelled."""
        faiss.omp_set_num_threads(1)
        return self._added(faiss.clone_index(self.index), vectors, cancelled)

    def search(self, query: F32, ef: int) -> I64:
        """The rows (m <= ef,) of the graph's ef candidates for query (d,), closest first by their codes."""
        faiss.omp_set_num_threads(1)
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        _, rows = self.index.search(np.ascontiguousarray(query, np.float32).reshape(1, -1), ef, params=parameters)
        found: I64 = rows[0][rows[0] >= 0]
        return found

    def save(self, path: Path) -> None:
        """Write the index to a file, in FAISS's format. Raises OSError, of a full disk among others."""
        with path.open("wb") as file:  # FAISS's own writer ignores what goes wrong when it closes the file
            faiss.write_index(self.index, faiss.PyCallbackIOWriter(file.write, 1 << 20))

    @classmethod
    def load(cls, path: Path, dimensions: int) -> Sealed:
        """Read what save() wrote. Raises CorruptIndexError for anything else."""
        remedy = "Delete this snapshot; another one, or the store, is used instead."
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise CorruptIndexError(f"{path} is not an index that FAISS can read.", remedy) from error
        if not isinstance(index, faiss.IndexHNSW) or index.d != dimensions:
            raise CorruptIndexError(f"{path} is not a graph over {dimensions} dimensions.", remedy)
        return cls(index, index.ntotal)

    @classmethod
    def _added(cls, index: Any, vectors: F32, cancelled: Callable[[], bool]) -> Sealed:
        for start in range(0, len(vectors), _CHUNK_ROWS):
            raise_if(cancelled)
            index.add(vectors[start : start + _CHUNK_ROWS])
        return cls(index, index.ntotal)


def _sample(vectors: F32) -> F32:
    if len(vectors) <= TRAINING_ROWS:
        return vectors
    chosen = np.random.default_rng(0).choice(len(vectors), TRAINING_ROWS, replace=False)
    sample: F32 = vectors[np.sort(chosen)]
    return sample
