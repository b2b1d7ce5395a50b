"""Everything below the service, opened on a folder, for tests of what it decides."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from nearshore.documents.collections import Collections
from nearshore.documents.documents import Documents
from nearshore.documents.engines import Engines
from nearshore.documents.limits import Limits
from nearshore.documents.models import Models
from nearshore.documents.requests import CollectionInput, DocumentInput, RawValue, UpsertRequest, Vectors
from nearshore.documents.store_threads import StoreThreads
from nearshore.documents.threads import Threads
from nearshore.embedding import Embedder
from nearshore.records import F32, Metric
from nearshore.replica import ReplicaOptions, Replicas
from nearshore.search.searcher import Searcher
from nearshore.store.base import Store
from nearshore.store.sqlite import SqliteStore
from tests.tiny_bert import make_bundle

T = TypeVar("T")
DIMENSIONS = 4  # of collections without a model


class Engine:
    """A store, its replicas, one event loop, and the classes under test. Close it."""

    def __init__(
        self,
        folder: Path,
        embedders: Mapping[str, Embedder] | None = None,
        limits: Limits = Limits(),  # noqa: B008 -- frozen
        *,
        following: bool = True,
        store: Store | None = None,
    ) -> None:
        """following: whether replicas apply what the store commits; store: instead of one in folder; taken over."""
        self.deaths: list[BaseException] = []
        self.store: Store = store or SqliteStore.open(
            folder, max_transaction_rows=1_000, max_transaction_bytes=4 << 20, max_queued_bytes=64 << 20
        )
        self.replicas = Replicas.open(self.store, folder, ReplicaOptions(), self.deaths.append)
        if following:
            self.replicas.start()
        self._executor = ThreadPoolExecutor(4)
        self._runner = asyncio.Runner()
        self.models = Models(Engines(embedders or {}), next(iter(embedders)) if embedders else "none")
        self._changes = ThreadPoolExecutor(1)
        asking, changing = StoreThreads(self._executor, 4), StoreThreads(self._changes, 1)
        threads = Threads(self._executor, self._executor, asking, changing)
        self.documents = Documents(self.store, self.replicas, self.models, limits, threads)
        self.collections = Collections(self.replicas, self.models, limits, threads)
        self.searcher = Searcher(self.replicas, self.models, limits, threads, ef_search=128)

    def run(self, awaited: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine."""
        return self._runner.run(awaited)

    def create(self, collection_id: str, *, model: str = "", metric: Metric = Metric.COSINE) -> str:
        """A new collection's name; without a model it has DIMENSIONS."""
        dimensions = 0 if model else DIMENSIONS
        request = CollectionInput(collection_id, model=model, dimensions=dimensions, metric=metric)
        return self.run(self.collections.create(request)).name

    def put(
        self,
        collection: str,
        ids: Sequence[str],
        vectors: F32,
        metadata: Sequence[Mapping[str, RawValue]] | None = None,
    ) -> str:
        """Upsert documents that have these vectors (n, d); returns the write token."""
        documents = [
            DocumentInput(each, metadata=metadata[index] if metadata else {}) for index, each in enumerate(ids)
        ]
        request = UpsertRequest(collection, documents, vectors=packed(vectors))
        return self.run(self.documents.upsert(request)).write_token

    def close(self) -> None:
        """Stop everything; fails when a thread of the replicas died."""
        self._runner.close()
        self.replicas.close()
        self._executor.shutdown()
        self._changes.shutdown()
        self.store.close()
        assert not self.deaths

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def packed(vectors: F32, fingerprint: str = "") -> Vectors:
    """Vectors (n, d) as they are sent."""
    return Vectors.from_array(np.asarray(vectors, np.float32), fingerprint)


def unpacked(vectors: Vectors | None) -> F32:
    """Vectors (n, d) as they were sent."""
    assert vectors is not None
    array: F32 = np.frombuffer(vectors.data, "<f4").reshape(vectors.rows, vectors.dimensions)
    return array


def tiny_embedder(folder: Path, *, max_queued_tokens: int = 1 << 20) -> Embedder:
    """The tiny model of tests.tiny_bert, embedding."""
    return Embedder.open(make_bundle(folder), workers=2, max_run_tokens=512, max_queued_tokens=max_queued_tokens)
