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
from benchmarks.server_process import ServerProcess
from nearshore.bundle import load_bundle
from nearshore.client import Query
from nearshore.embedding import Embedder
from nearshore.records import F32
from nearshore.settings import EmbeddingSettings, load_settings

COLLECTION = "passages"
LOOK_AHEAD = 8_192  # texts a call, so that equal lengths meet


def open_embedder() -> Embedder:
    """The engine as the server opens it."""
    settings = load_settings()
    defaults = EmbeddingSettings()
    return Embedder.open(
        load_bundle(settings.model_dir / defaults.model),
        workers=defaults.workers,
        max_run_tokens=defaults.max_run_tokens,
        max_queued_tokens=1 << 30,
    )


def embed_alone(source: Path) -> float:
    """Seconds to embed the passages of a file, with nothing stored or indexed; three calls are always queued."""
    embedder = open_embedder()
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
    """Seconds of `nearshore index SOURCE` against a running server, until the last passage is searchable."""
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
    return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """Medians of single text searches, one caller, in milliseconds."""

    queries: int
    search_ms: float  # through gRPC, client on the same machine
    embedding_ms: float  # the same texts through the engine, in process
    faiss_ms: float  # the same vectors against the same FAISS index, in process
    added_ms: float  # search - embedding - faiss


def search_speed(server: ServerProcess, texts: Sequence[str], *, ef_search: int = 128) -> SearchFigures:
    """Time each text through gRPC, then through the engine and the newest saved FAISS index alone."""
    sealed = max(server.data_dir.rglob("sealed.faiss"), key=lambda path: path.stat().st_mtime)
    with server.client() as client:
        for text in texts[:20]:
            client.search(COLLECTION, text)
        search_s = [_seconds(lambda text=text: client.search(COLLECTION, Query(text=text))) for text in texts]
        vectors = client.embed(texts).vectors
    embedder = open_embedder()
    embedder.embed(texts[:20])
    embedding_s = [_seconds(lambda text=text: embedder.embed([text])) for text in texts]
    embedder.close()
    faiss_s = _time_faiss(sealed, vectors, ef_search)
    search_ms, embedding_ms, faiss_ms = (1e3 * statistics.median(times) for times in (search_s, embedding_s, faiss_s))
    return SearchFigures(len(texts), search_ms, embedding_ms, faiss_ms, search_ms - embedding_ms - faiss_ms)


def _seconds(call: object) -> float:
    assert callable(call)
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _time_faiss(sealed: Path, vectors: F32, ef_search: int) -> list[float]:
    faiss.omp_set_num_threads(1)
    index = faiss.read_index(str(sealed))
    parameters: Any = faiss.SearchParametersHNSW(efSearch=ef_search)  # type: ignore[attr-defined]  # SWIG makes it
    rows = np.ascontiguousarray(vectors, np.float32)
    index.search(rows[:20], ef_search, params=parameters)
    return [_seconds(lambda i=i: index.search(rows[i : i + 1], ef_search, params=parameters)) for i in range(len(rows))]


def main() -> None:
    """`embed FILE`: print {"seconds": ...} as JSON."""
    assert sys.argv[1] == "embed", sys.argv
    print(json.dumps({"seconds": embed_alone(Path(sys.argv[2]))}))


if __name__ == "__main__":
    main()
