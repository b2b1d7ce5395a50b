"""Calls that wait for a store that is slow or hangs."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearshore.documents.requests import CollectionInput, CountRequest, DeleteRequest, DocumentInput, UpsertRequest
from nearshore.documents.store_threads import let_claim
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
