"""Calls that wait for a store that is slow or hangs."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearshore.documents.requests import CollectionInput, CountRequest, DeleteRequest, DocumentInput, UpsertRequest
from nearshore.documents.store_threads import StoreThreads, let_claim
from nearshore.errors import OverloadedError
from tests.engine import DIMENSIONS, Engine, packed


def test_only_calls_that_wait_for_the_store_need_a_place_among_those(tmp_path: Path) -> None:
    """A read of what is there is answered while no such place is left; one that would wait, and any write, is not."""
    with Engine(tmp_path) as engine, Engine(tmp_path / "behind", following=False) as behind:
        one = np.ones((1, DIMENSIONS), np.float32)
        collections = [each.create("c") for each in (engine, behind)]
        tokens = [each.put(name, ["a"], one) for each, name in zip((engine, behind), collections, strict=True)]
        counts = [CountRequest(name, read_after=[token]) for name, token in zip(collections, tokens, strict=True)]
        engine.run(engine.documents.count(counts[0]))

        def full() -> None:
            raise OverloadedError("no place is left")

        async def without_place(call: Coroutine[Any, Any, Any]) -> Any:
            let_claim(full)
            return await call

        assert engine.run(without_place(engine.documents.count(counts[0]))).count == 1
        upsert = UpsertRequest(collections[0], [DocumentInput("b")], packed(one))
        for refusing, call in (
            (behind, behind.documents.count(counts[1])),
            (engine, engine.documents.upsert(upsert)),
            (engine, engine.documents.delete(DeleteRequest(collections[0], ids=["a"]))),
            (engine, engine.documents.count(CountRequest("collections/unknown"))),
            (engine, engine.collections.create(CollectionInput("more", dimensions=2))),
            (engine, engine.collections.delete(collections[0])),
        ):
            with pytest.raises(OverloadedError):
                refusing.run(without_place(call))


class Sent:
    """What a caller sent."""

    def read(self) -> None:
        """Work on it."""


def test_nothing_is_kept_of_a_caller_that_leaves_while_the_store_hangs() -> None:
    """What waits for a thread goes with its caller, or requests would pile up for as long as the store hangs."""
    entered, release = threading.Event(), threading.Event()

    def hang() -> bool:
        entered.set()
        return release.wait()

    async def leave(threads: StoreThreads, sent: Sent) -> None:
        waiting = asyncio.create_task(threads.run(sent.read, None))
        await asyncio.sleep(0)  # it has begun to wait
        waiting.cancel()
        await asyncio.wait([waiting])

    async def calls(executor: ThreadPoolExecutor) -> None:
        threads = StoreThreads(executor, 1)
        hanging = asyncio.create_task(threads.run(hang, None))
        await asyncio.to_thread(entered.wait)
        sent = Sent()
        kept = weakref.ref(sent)
        await leave(threads, sent)
        del sent
        assert kept() is None
        release.set()
        assert await hanging

    with ThreadPoolExecutor(1) as executor:
        try:
            asyncio.run(calls(executor))
        finally:
            release.set()


def test_a_thread_is_free_only_when_its_work_has_ended() -> None:
    """Though the caller has left: else calls would queue behind work that hangs. Work that fails frees it as well."""
    entered, release = threading.Event(), threading.Event()
    order: list[str] = []

    def hang() -> None:
        entered.set()
        release.wait()
        order.append("ended")

    async def calls(executor: ThreadPoolExecutor) -> None:
        threads = StoreThreads(executor, 1)
        leaving = asyncio.create_task(threads.run(hang, None))
        await asyncio.to_thread(entered.wait)
        leaving.cancel()
        await asyncio.wait([leaving])
        following = asyncio.create_task(threads.run(partial(order.append, "next"), None))
        await asyncio.sleep(0)  # it has begun to wait
        await asyncio.wrap_future(executor.submit(order.append, "in the executor's second thread"))
        release.set()
        await following
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0, None)
        await threads.run(partial(order.append, "last"), None)

    with ThreadPoolExecutor(2) as executor:
        asyncio.run(calls(executor))
    assert order == ["in the executor's second thread", "ended", "next", "last"]
