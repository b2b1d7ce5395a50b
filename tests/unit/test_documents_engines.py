"""Which models are loaded, and which make room, without a server: loads end when the test lets them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nearshore.documents.engines import MAX_LOADS, Demand, Engines
from nearshore.documents.errors import ModelMemoryError
from nearshore.embedding import Embedder, Workplace
from nearshore.errors import OverloadedError
from tests.tiny_bert import make_bundle

PATIENCE_S = 20
NAMES = ("default", "a", "b", "c")


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Embedder]]:
    """Models of one size."""
    bundle = make_bundle(tmp_path_factory.mktemp("models"))
    opened = {name: Embedder.open(bundle, workers=1, max_run_tokens=64, max_queued_tokens=1024) for name in NAMES}
    yield opened
    for embedder in opened.values():
        embedder.close()


class Folder:
    """Loads that wait for the test."""

    def __init__(self, embedders: Mapping[str, Embedder]) -> None:
        self._embedders = embedders
        self.loads: list[str] = []
        self.go_on = threading.Semaphore(0)

    def size_bytes(self, name: str) -> int:
        return self._embedders[name].bundle.size_bytes

    def load(self, name: str) -> Embedder:
        assert self.go_on.acquire(timeout=PATIENCE_S)
        self.loads.append(name)
        return self._embedders[name]

    def names_of(self, fingerprint: str) -> list[str]:
        del fingerprint
        return []

    def cross_encoders(self) -> list[str]:
        return []


@pytest.fixture
def folder(embedders: Mapping[str, Embedder]) -> Folder:
    return Folder(embedders)


def with_room_for(
    count: int, folder: Folder, embedders: Mapping[str, Embedder], test: Callable[[Engines], Awaitable[None]]
) -> None:
    """Run a test on engines that hold so many models, the default included."""

    async def run() -> None:
        with ThreadPoolExecutor(1) as thread:
            default = embedders["default"]
            await test(Engines({"default": default}, Demand(folder, thread, count * default.bundle.size_bytes)))

    asyncio.run(run())


async def use(engines: Engines, name: str) -> None:
    """A call that is over at once."""
    lease = await engines.lease(name, None)
    assert lease is not None
    with lease:
        assert lease.name == name


def names(engines: Engines) -> list[str]:
    """Those that are loaded."""
    return sorted(name for name, _ in engines.loaded())


def test_a_model_in_use_stays(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """Another that needs its room is refused, with nothing unloaded, until its last call has ended."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(2)
        lease = await engines.lease("a", None)
        assert lease is not None
        with lease:
            with pytest.raises(ModelMemoryError, match=r"are in use\. Retry"):
                await use(engines, "b")
            assert names(engines) == ["a", "default"]
        await use(engines, "b")
        assert names(engines) == ["b", "default"]

    with_room_for(2, folder, embedders, test)


def test_two_loads_at_once_do_not_pass_the_bound(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """The second looks for room when the first has taken its own, and does not take it from who waits for it."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(2)
        first, second = asyncio.create_task(engines.lease("a", None)), asyncio.create_task(use(engines, "b"))
        lease = await first
        assert lease is not None
        with lease, pytest.raises(ModelMemoryError):
            await second
        assert names(engines) == ["a", "default"]

    with_room_for(2, folder, embedders, test)


def test_the_model_that_was_longest_unused_makes_room(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """Not the one that was loaded first."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(3)
        for name in ("a", "b", "a", "c"):
            await use(engines, name)
        assert names(engines) == ["a", "c", "default"]

    with_room_for(3, folder, embedders, test)


def test_a_load_goes_on_without_its_callers(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """The next finds the model loaded, and nobody counts as its user for ever."""

    async def test(engines: Engines) -> None:
        leaver = asyncio.create_task(use(engines, "a"))
        await asyncio.sleep(0)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        folder.go_on.release(2)
        await use(engines, "a")
        await use(engines, "b")
        assert folder.loads == ["a", "b"]

    with_room_for(2, folder, embedders, test)


def test_loads_that_wait_are_bounded(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """Names that nobody has cannot pile up; those that failed leave nothing behind."""

    async def test(engines: Engines) -> None:
        waiting = [asyncio.create_task(use(engines, f"none-{number}")) for number in range(MAX_LOADS)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="Retry"):
            await use(engines, "a")
        assert all(isinstance(each, KeyError) for each in await asyncio.gather(*waiting, return_exceptions=True))
        folder.go_on.release()
        await use(engines, "a")

    with_room_for(2, folder, embedders, test)


def test_the_memory_of_a_model_is_given_back_before_the_next_is_loaded(
    tmp_path: Path, embedders: Mapping[str, Embedder]
) -> None:
    """Else two would be there at once, and the bound would hold on paper only."""
    bundle, workplace = make_bundle(tmp_path), Workplace(workers=1, max_run_tokens=64, max_queued_tokens=1024)
    alive: list[weakref.ref[Embedder]] = []

    class Fresh(Folder):
        def load(self, name: str) -> Embedder:
            assert not any(each() for each in alive)
            embedder = Embedder.load(bundle, workplace)
            alive.append(weakref.ref(embedder))
            return embedder

    async def test(engines: Engines) -> None:
        for name in ("a", "b", "a"):
            lease = await engines.lease(name, None)
            assert lease is not None
            with lease:
                await asyncio.wrap_future(lease.embedder.submit(["a cat"]))
            del lease

    with_room_for(2, Fresh(embedders), embedders, test)
    assert len(alive) == 3
    workplace.close()
