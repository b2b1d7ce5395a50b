"""Callers of searches that leave, and searches that share their threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearshore.documents.requests import DocumentInput, UpsertRequest
from nearshore.embedding import Embedder, Embeddings, Reuse
from nearshore.search import ranking
from nearshore.search.answering import answer_queries
from nearshore.search.requests import BatchSearchRequest, SearchRequest
from tests.engine import DIMENSIONS, Engine, packed, tiny_embedder
from tests.tiny_bert import make_bundle

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

        monkeypatch.setattr(Embedder, "submit_query", slow)
        call = asyncio.create_task(engine.searcher.search(SearchRequest(collection, text="cat " * 2_000)))
        await begun.wait()
        call.cancel()
        await asyncio.wait([call])
        left.set()

    with tiny_embedder(tmp_path / "models") as embedder, Engine(tmp_path / "data", {"tiny": embedder}) as engine:
        engine.run(leave(engine, engine.create("c", model="models/tiny")))
        assert cancelled.wait(WAIT_S)


def test_a_batch_lets_other_searches_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that comes after batches which occupy every thread is answered before they are."""
    rank = ranking.rank
    answered: list[str] = []

    async def ask(engine: Engine, collection: str) -> None:
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        def watched(*arguments: Any) -> ranking.Ranked:
            loop.call_soon_threadsafe(begun.set)
            return rank(*arguments)

        monkeypatch.setattr("nearshore.search.answering.rank", watched)
        search = SearchRequest(collection, vector=packed(np.ones((1, DIMENSIONS), np.float32)))
        batch = BatchSearchRequest(collection, [search] * 256)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(engine.searcher.batch(batch), name="batch") for _ in range(8)
        ]
        await begun.wait()
        tasks.append(asyncio.create_task(engine.searcher.search(search), name="single"))
        for task in tasks:
            task.add_done_callback(lambda done: answered.append(done.get_name()))
        await asyncio.gather(*tasks)

    with Engine(tmp_path) as engine:
        collection = engine.create("c")
        engine.put(collection, ["a"], np.ones((1, DIMENSIONS), np.float32))
        engine.run(ask(engine, collection))
    assert answered[0] == "single"


def test_a_query_whose_vector_is_kept_is_not_searched_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker embeds it, so a thread of searches goes on to search; its hits are those of the first time."""
    threads: list[str] = []

    def answer(*arguments: Any) -> Iterator[Any]:
        threads.append(threading.current_thread().name)
        return answer_queries(*arguments)

    monkeypatch.setattr("nearshore.search.searcher.answer_queries", answer)
    with (
        Embedder.open(
            make_bundle(tmp_path),
            workers=1,
            max_run_tokens=64,
            max_queued_tokens=1_000,
            reuse=Reuse(cache_bytes=10_000),
        ) as embedder,
        Engine(tmp_path / "data", {"tiny": embedder}) as engine,
    ):
        collection = engine.create("c", model="models/tiny")
        documents = [DocumentInput(each, text=each) for each in ("red fish", "blue bird")]
        token = engine.run(engine.documents.upsert(UpsertRequest(collection, documents))).write_token
        request = SearchRequest(collection, text="green fish", read_after=[token])
        first, second = (engine.run(engine.searcher.search(request)) for _ in range(2))
    assert [(hit.document.id, hit.score) for hit in first.hits] == [(hit.document.id, hit.score) for hit in second.hits]
    assert threads[0].startswith("embed-")
    assert threads[1] != threading.current_thread().name
    assert not threads[1].startswith("embed-")
