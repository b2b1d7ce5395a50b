"""What indexing costs beyond embedding, and what a text search costs beyond its parts.

Run as `python -m benchmarks.indexing_speed embed FILE` it embeds a file's passages alone and prints the seconds; the
other functions are used by `benchmarks.prove` and the slow tests.
"""

import nearshore.threads  # noqa: F401  # first: it limits the threads of native libraries  # isort: skip

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks import corpora
from benchmarks.bundles import open_engine
from benchmarks.server_process import ServerProcess
from nearshore.client import Query
from nearshore.records import F32
from nearshore.settings import IndexSettings

COLLECTION = "passages"
LOOK_AHEAD = 8_192  # texts a call, so that equal lengths meet


def embed_alone(source: Path) -> float:
    """Seconds to embed the passages of a file, with nothing stored or indexed; three calls are always queued."""
    embedder = open_engine()
    rows = corpora.read_passages(source)
    texts = [f"{row['title']} {row['text']}" if row["title"] else row["text"] for row in rows]
    began = time.perf_counter()
    pending = []
    for start in range(0, len(texts), LOOK_AHEAD):
        pending.append(embedder.submit(texts[start : start + LOOK_AHEAD], bulk=True))
        if len(pending) > 2:
            pending.pop(0).result()
    for future in pending:
        future.result()
    seconds = time.perf_counter() - began
    embedder.close()
    return seconds


def embed_alone_in_own_process(source: Path) -> float:
    """embed_alone() in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.indexing_speed", "embed", str(source)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(json.loads(done.stdout)["seconds"])


def index_through(server: ServerProcess, source: Path, documents: int) -> float:
    """Seconds of `nearshore index SOURCE` against a running server, until the last passage is searchable.

    documents: how many there are then. A graph that is still being built is waited for, outside of these seconds, so
    that what is measured next has the machine for itself.
    """
    began = time.perf_counter()
    subprocess.run(
        [
            sys.executable, "-m", "nearshore", "--server", server.address,
            "index", str(source), "--collection", COLLECTION,
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    with server.client() as client:
        while client.count(COLLECTION) < documents:
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        while client.get_collection(COLLECTION).status.building:
            time.sleep(0.05)
    return seconds


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """Medians of single text searches, one caller, in milliseconds."""

    queries: int
    search_ms: float  # through gRPC, client on the same machine
    embedding_ms: float  # the same texts through the engine, in process
    faiss_ms: float  # the same vectors against the same FAISS index, in process
    added_ms: float  # the median of search - embedding - faiss, pair by pair


def search_speed(server: ServerProcess, texts: Sequence[str], *, rounds: int = 3) -> SearchFigures:
    """Time each text through gRPC, then at once through the engine and the newest saved FAISS index of this process.

    In turns, so that drift hits both sides, and so that both find the caches as the other's model left them.
    """
    parts = BareParts(max(server.data_dir.rglob("sealed.faiss"), key=lambda path: path.stat().st_mtime))
    search_s, embedding_s, faiss_s, added_s = [], [], [], []
    with server.client() as client:
        for text in [*texts[:20], *(list(texts) * rounds)]:
            began = time.perf_counter()
            client.search(COLLECTION, Query(text=text))
            searched = time.perf_counter()
            vectors = parts.embedder.embed([text]).vectors
            embedded = time.perf_counter()
            parts.search(vectors)
            ended = time.perf_counter()
            search_s.append(searched - began)
            embedding_s.append(embedded - searched)
            faiss_s.append(ended - embedded)
            added_s.append(searched - began - (ended - searched))
    parts.embedder.close()
    medians = (1e3 * statistics.median(times[20:]) for times in (search_s, embedding_s, faiss_s, added_s))
    return SearchFigures(rounds * len(texts), *medians)


class BareParts:
    """The engine and a saved FAISS index, without service, store or replica."""

    def __init__(self, sealed: Path) -> None:
        """sealed: the FAISS index of a snapshot."""
        faiss.omp_set_num_threads(1)
        self.embedder = open_engine()
        self._index = faiss.read_index(str(sealed))
        self._ef_search = IndexSettings().ef_search
        self._parameters: Any = faiss.SearchParametersHNSW(efSearch=self._ef_search)  # type: ignore[attr-defined]  # SWIG

    def search(self, vectors: F32) -> None:
        """The candidates that the server asks of its graph for vectors (1, dimensions)."""
        self._index.search(np.ascontiguousarray(vectors), self._ef_search, params=self._parameters)


def main() -> None:
    """`embed FILE`: print {"seconds": ...} as JSON."""
    assert sys.argv[1] == "embed", sys.argv
    print(json.dumps({"seconds": embed_alone(Path(sys.argv[2]))}))


if __name__ == "__main__":
    main()
