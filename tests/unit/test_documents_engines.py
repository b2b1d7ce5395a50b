"""Which models are loaded, and which make room, without a server: loads end when the test lets them."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from nearshore.bundle import Bundle, CorruptBundleError
from nearshore.documents.engines import MAX_LOADS, Engines
from nearshore.documents.errors import ModelTooLargeError
from nearshore.documents.leases import Lease
from nearshore.documents.loading import Demand
from nearshore.embedding import Embedder, Workplace
from nearshore.errors import DeadlineError, OverloadedError
from tests.tiny_bert import make_bundle
from tests.waiting import eventually

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
        self.refused: list[str] = []  # which got no room
        self.begun, self.go_on = threading.Event(), threading.Semaphore(0)

    def described(self, name: str) -> Bundle:
        return self._embedders[name].bundle

    def load(self, name: str, make_room: Callable[[int], None]) -> Embedder:
        self.begun.set()
        assert self.go_on.acquire(timeout=PATIENCE_S)
        try:
            make_room(self._embedders[name].bundle.size_bytes)
        except BaseException:
            self.refused.append(name)
            raise
        self.loads.append(name)
        return self._embedders[name]

    def bundles(self) -> list[Bundle]:
        return []


@pytest.fixture
def folder(embedders: Mapping[str, Embedder]) -> Folder:
    return Folder(embedders)


def with_room_for(
    count: int, folder: Folder, embedders: Mapping[str, Embedder], test: Callable[[Engines], Awaitable[None]]
) -> None:
    """Run a test on engines that hold so many models, the default included."""

    async def run() -> None:
        with ThreadPoolExecutor(1) as loader, ThreadPoolExecutor(1) as reader:
            default = embedders["default"]
            demand = Demand(folder, loader, reader, count * default.bundle.size_bytes)
            await test(Engines({"default": default}, demand))

    asyncio.run(run())


async def held(engines: Engines, name: str) -> Lease:
    """A call that goes on, for the length of a with block."""
    lease = await engines.lease(name, None)
    assert lease is not None
    return lease


async def use(engines: Engines, name: str) -> None:
    """A call that is over at once."""
    with await held(engines, name) as lease:
        assert lease.name == name


async def over(engines: Engines, name: str) -> None:
    """Wait until the load of this model, which fails, has ended: what unloads takes its turn behind it."""
    assert not await engines.unload(name, time.monotonic() + PATIENCE_S)


def names(engines: Engines) -> list[str]:
    """Those that are loaded."""
    return sorted(name for name, _ in engines.loaded())


def test_a_model_in_use_stays_until_its_calls_are_over(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """What waits for its room goes before calls that come later, so that none without a gap keep it out for ever."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(3)
        with await held(engines, "a") as lease:
            others = [asyncio.create_task(use(engines, "b"))]
            await asyncio.to_thread(eventually, lambda: names(engines) == ["default"])
            for name in ("b", "a"):
                with pytest.raises(DeadlineError, match="while the model was loaded"):
                    await engines.lease(name, time.monotonic() + 0.1)
            others.append(asyncio.create_task(use(engines, "a")))
            await asyncio.sleep(0)
            assert not any(each.done() for each in others)
            assert lease.embedder is embedders["a"]
            assert folder.loads == ["a"]
        await asyncio.gather(*others)
        assert folder.loads == ["a", "b", "a"]

    with_room_for(2, folder, embedders, test)


def test_a_model_that_nobody_uses_makes_room_first(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """However long ago the last call for one in use came."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(3)
        with await held(engines, "a"):
            await use(engines, "b")
            await use(engines, "c")
            assert names(engines) == ["a", "c", "default"]

    with_room_for(3, folder, embedders, test)


def test_two_loads_at_once_do_not_pass_the_bound(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """The second looks for room when the first has taken its own, and does not take it from who waits for it."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(2)
        first, second = asyncio.create_task(held(engines, "a")), asyncio.create_task(use(engines, "b"))
        with await first:
            await asyncio.to_thread(eventually, lambda: names(engines) == ["default"])
            assert folder.loads == ["a"]
        await second
        assert names(engines) == ["b", "default"]

    with_room_for(2, folder, embedders, test)


def test_the_model_that_was_longest_unused_makes_room(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """Not the one that was loaded first."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(3)
        for name in ("a", "b", "a", "c"):
            await use(engines, name)
        assert names(engines) == ["a", "c", "default"]

    with_room_for(3, folder, embedders, test)


def test_a_model_that_never_fits_is_not_to_be_tried_again(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """A client that is told to retry would do so in vain."""

    async def test(engines: Engines) -> None:
        with pytest.raises(ModelTooLargeError, match="smaller model"):
            await use(engines, "a")
        assert names(engines) == ["default"]

    with_room_for(1, folder, embedders, test)


def test_a_refused_load_leaves_nothing_to_the_collector(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """Its error knows the frames in which models were looked at: these would stay in memory until a collection."""

    async def test(engines: Engines) -> None:
        with pytest.raises(ModelTooLargeError) as refused:
            await use(engines, "a")
        error = weakref.ref(refused.value)
        del refused
        await asyncio.sleep(0)  # the task's own last callback
        assert error() is None

    gc.collect()
    gc.disable()
    try:
        with_room_for(1, folder, embedders, test)
    finally:
        gc.enable()


def test_the_folder_is_read_while_a_model_is_loaded(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """Who asks for a collection whose model is nowhere learns it at once."""

    async def test(engines: Engines) -> None:
        loading = asyncio.create_task(use(engines, "a"))
        assert await asyncio.to_thread(folder.begun.wait, PATIENCE_S)
        assert list(await engines.bundles(time.monotonic() + PATIENCE_S)) == ["default"]
        assert not folder.loads
        folder.go_on.release()
        await loading

    with_room_for(2, folder, embedders, test)


def test_a_bundle_that_is_broken_is_told_in_the_log(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """Its callers may have left by then, and whoever runs the server is the one to mend it."""
    error = CorruptBundleError(Path("a"), "model.onnx has changed")

    def broken(name: str) -> Bundle:
        raise error

    async def test(engines: Engines) -> None:
        with pytest.raises(CorruptBundleError):
            await use(engines, "a")

    folder.described = broken  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logged:
        with_room_for(2, folder, embedders, test)
    assert [(each["model"], each["reason"], each["remedy"]) for each in logged] == [("a", error.reason, error.remedy)]


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


def test_nobody_makes_room_for_a_load_without_callers(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """A model in use goes on taking calls when who wanted its room has left before it was asked for."""

    async def test(engines: Engines) -> None:
        folder.go_on.release()
        with await held(engines, "a"):
            leaver = asyncio.create_task(use(engines, "b"))
            await asyncio.sleep(0)
            leaver.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaver
            folder.go_on.release()
            await over(engines, "b")
            assert folder.refused == ["b"]
            await use(engines, "a")
        folder.go_on.release()
        await use(engines, "b")
        assert folder.loads == ["a", "b"]

    with_room_for(2, folder, embedders, test)


def test_a_model_stays_when_who_waits_for_its_room_leaves(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """It takes calls again, those first that came meanwhile, and the load is given up; the next call begins another."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(3)
        with await held(engines, "a"):
            leaver = asyncio.create_task(use(engines, "b"))
            await asyncio.to_thread(eventually, lambda: names(engines) == ["default"])
            meanwhile = asyncio.create_task(use(engines, "a"))
            await asyncio.sleep(0)
            leaver.cancel()
            await asyncio.wait_for(meanwhile, PATIENCE_S)
            await over(engines, "b")
            assert folder.refused == ["b"]
            await use(engines, "a")
            assert (folder.loads, names(engines)) == (["a"], ["a", "default"])
        await use(engines, "b")
        assert (folder.loads, names(engines)) == (["a", "b"], ["b", "default"])

    with_room_for(2, folder, embedders, test)


def test_a_model_is_unloaded_once_its_calls_are_over(folder: Folder, embedders: Mapping[str, Embedder]) -> None:
    """It takes no more meanwhile: they wait for a load of their own. Who asks again waits for the same."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(2)
        with await held(engines, "a") as lease:
            asking = [asyncio.create_task(engines.unload("a", None)) for _ in range(2)]
            await asyncio.sleep(0.01)
            later = asyncio.create_task(use(engines, "a"))
            with pytest.raises(DeadlineError, match="while the model was unloaded"):
                await engines.unload("a", time.monotonic() + 0.1)
            assert lease.embedder is embedders["a"]
            assert (folder.loads, later.done(), any(each.done() for each in asking)) == (["a"], False, False)
        assert await asyncio.gather(*asking) == [True, True]
        await later
        assert (folder.loads, names(engines)) == (["a", "a"], ["a", "default"])
        assert await engines.unload("a", None) is True
        assert (await engines.unload("a", None), names(engines)) == (False, ["default"])

    with_room_for(2, folder, embedders, test)


def test_memory_is_given_back_after_each_load_and_unload(
    folder: Folder, embedders: Mapping[str, Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the C library keeps would be as much as a model."""
    given: list[list[str]] = []

    async def test(engines: Engines) -> None:
        for module in ("loading", "memory"):
            monkeypatch.setattr(f"nearshore.documents.{module}.give_back", lambda: given.append(list(folder.loads)))
        folder.go_on.release(2)
        await use(engines, "a")
        await use(engines, "b")
        await engines.unload("b", None)
        assert given == [["a"], ["a"], ["a", "b"], ["a", "b"]]

    with_room_for(2, folder, embedders, test)


def test_a_model_in_use_stays_when_those_who_want_it_unloaded_leave(
    folder: Folder, embedders: Mapping[str, Embedder]
) -> None:
    """Else a call that hangs would hold up all calls that come for the model, and all loads, for nobody."""

    async def test(engines: Engines) -> None:
        folder.go_on.release(2)
        with await held(engines, "a"):
            with pytest.raises(DeadlineError, match="while the model was unloaded"):
                await engines.unload("a", time.monotonic() + 0.1)
            await use(engines, "a")
            await use(engines, "b")
            assert (folder.loads, names(engines)) == (["a", "b"], ["a", "b", "default"])

    with_room_for(3, folder, embedders, test)


def test_an_unload_whose_callers_leave_before_its_turn_is_none(
    folder: Folder, embedders: Mapping[str, Embedder]
) -> None:
    """They were told that nothing was done."""

    async def test(engines: Engines) -> None:
        folder.go_on.release()
        await use(engines, "a")
        loading = asyncio.create_task(use(engines, "b"))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineError, match="while the model was unloaded"):
            await engines.unload("a", time.monotonic() + 0.1)
        folder.go_on.release()
        await loading
        await asyncio.sleep(0)
        assert names(engines) == ["a", "b", "default"]
        assert await engines.unload("a", None) is True

    with_room_for(3, folder, embedders, test)


def test_what_waits_to_be_loaded_is_not_there_to_be_unloaded(embedders: Mapping[str, Embedder]) -> None:
    """Its load is not waited for, for that waits for this one; what made room meanwhile is unloaded all the same."""
    made_room, go_on = threading.Event(), threading.Event()

    class Slow(Folder):
        def load(self, name: str, make_room: Callable[[int], None]) -> Embedder:
            embedder = super().load(name, make_room)
            if name == "c":
                made_room.set()
                assert go_on.wait(PATIENCE_S)
            return embedder

    folder = Slow(embedders)

    async def test(engines: Engines) -> None:
        folder.go_on.release(3)
        await use(engines, "b")
        first = asyncio.create_task(use(engines, "c"))
        await asyncio.sleep(0)
        asking = asyncio.create_task(engines.unload("b", None))
        assert await asyncio.to_thread(made_room.wait, PATIENCE_S)
        second = asyncio.create_task(use(engines, "b"))
        await asyncio.sleep(0)
        go_on.set()
        assert await asking is True
        await asyncio.gather(first, second)
        assert folder.loads == ["b", "c", "b"]

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
    leases: list[Lease] = []

    class Fresh(Folder):
        def load(self, name: str, make_room: Callable[[int], None]) -> Embedder:
            make_room(bundle.size_bytes)
            assert not any(each() for each in alive)
            embedder = Embedder.load(bundle, workplace)
            alive.append(weakref.ref(embedder))
            return embedder

    async def test(engines: Engines) -> None:
        for name in ("a", "b", "a"):
            with await held(engines, name) as lease:
                await asyncio.wrap_future(lease.embedder.submit(["a cat"]))
            leases.append(lease)  # a call may go on, as an upsert does that waits for its store
        del lease
        await engines.unload("a", None)
        assert not any(each() for each in alive)

    with_room_for(2, Fresh(embedders), embedders, test)
    assert len(alive) == 3
    workplace.close()
