"""Callers of searches that leave, and searches that share their threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from nearshore.embedding import Embedder, Embeddings
from nearshore.search.requests import SearchRequest
from tests.engine import Engine, tiny_embedder

WAIT_S = 30.0


def test_a_caller_that_leaves_while_its_query_is_tokenized_stops_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread queues after the caller has gone is cancelled."""
    left, cancelled = threading.Event(), threading.Event()
    embedding: Future[Embeddings] = Future()
    embedding.add_done_callback(lambda _: cancelled.set())

    async def leave(engine: Engine, collection: str) -> None:
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        def slow(*_: object, **__: object) -> Future[Embeddings]:
            loop.call_soon_threadsafe(begun.set)
            assert left.wait(WAIT_S)
            return embedding

        monkeypatch.setattr(Embedder, "submit", slow)
        call = asyncio.create_task(engine.searcher.search(SearchRequest(collection, text="cat " * 2_000)))
        await begun.wait()
        call.cancel()
        await asyncio.wait([call])
        left.set()

    with tiny_embedder(tmp_path / "models") as embedder, Engine(tmp_path / "data", {"tiny": embedder}) as engine:
        engine.run(leave(engine, engine.create("c", model="models/tiny")))
        assert cancelled.wait(WAIT_S)
