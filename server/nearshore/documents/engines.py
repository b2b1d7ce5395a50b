"""The models that are loaded: some from the start, others when first asked for, within a bound on their size.

All is decided on the event loop, so nothing here is locked. What blocks runs in one thread, a load at a time: two at
once could pass the bound together. A model in use is never unloaded; one that a call waits for is in use. One that has
to make room takes no more calls: who asks for it waits for a load of its own, behind the one that needs its room. It
takes them again when that load is given up, for nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import structlog

from nearshore.bundle import Bundle, BundleExchangedError, BundleUnreadableError, CorruptBundleError
from nearshore.documents.errors import ModelStaysLoadedError, ModelTooLargeError
from nearshore.documents.leases import Engine, Lease, Place, Users
from nearshore.documents.loading import Demand, load, size_of
from nearshore.documents.memory import let_go
from nearshore.documents.waiting import late, result_of
from nearshore.embedding.errors import ModelMismatchError
from nearshore.errors import OverloadedError

T = TypeVar("T")

_OF_BUNDLES = (CorruptBundleError, BundleUnreadableError, BundleExchangedError, ModelMismatchError)
MAX_LOADS = 16  # under way or waiting for their turn

log = structlog.get_logger(__name__)


class Engines:
    """Finds and loads models by name. Its methods are called on one event loop, except where they say otherwise."""

    def __init__(self, pinned: Mapping[str, Engine], demand: Demand | None = None) -> None:
        """pinned: loaded for good, by name; demand: None where no other is ever loaded. Owns none of them."""
        self._places = {  # the one that was used last is last
            name: Place(engine=engine, size_bytes=engine.bundle.size_bytes, pinned=True)
            for name, engine in pinned.items()
        }
        self._demand = demand
        self._turn = asyncio.Lock()  # to load or to unload
        self._unloading: dict[str, tuple[Users, asyncio.Task[bool]]] = {}
        self.precisions: dict[str, str] = {}
        """In which precision vectors of a fingerprint are made, as far as models that were ever loaded tell."""
        for engine in pinned.values():
            self._remember(engine)

    @property
    def loads_others(self) -> bool:
        """Whether a model that is not loaded can be."""
        return self._demand is not None

    def loaded(self) -> Iterator[tuple[str, Engine]]:
        """Names and models, in any thread."""
        for name, place in list(self._places.items()):
            if (engine := place.serving) is not None:
                yield name, engine

    def sizes(self) -> dict[str, int]:
        """Bytes of the files of each model that is loaded, in any thread."""
        return {name: place.size_bytes for name, place in list(self._places.items()) if place.serving is not None}

    async def bundles(self, deadline: float | None) -> dict[str, Bundle]:
        """What could be leased, by name: as it is loaded, else as the folder has it. Raises DeadlineError."""
        found: dict[str, Bundle] = {}
        if self._demand is not None:
            looking = self._demand.reader.submit(self._demand.folder.bundles)
            found = {each.path.name: each for each in await result_of(looking, deadline, "the model folder was read")}
        return found | {name: engine.bundle for name, engine in self.loaded()}

    async def described(self, name: str, deadline: float | None) -> Bundle | None:
        """What could be leased by that name: as it is loaded, else as the folder has it. None: lease() gives none.

        Raises DeadlineError and what ModelFolder.described does.
        """
        place = self._places.get(name)
        if place is not None and place.engine is not None:
            return place.engine.bundle
        if self._demand is None:
            return None
        looking = self._demand.reader.submit(self._demand.folder.described, name)
        return await result_of(looking, deadline, "the model folder was read")

    async def lease(self, name: str, deadline: float | None) -> Lease | None:
        """The model of that name, loaded first if need be; None where it is not loaded and cannot be.

        A load goes on though its callers leave, unless it waits for calls of models that make room for it; one that
        failed is tried again by the next call. Raises DeadlineError, OverloadedError, ModelTooLargeError and what
        ModelFolder raises.
        """
        while (place := self._places.get(name)) is not None and place.going is not None:
            await _end_of(place.going, deadline, "loaded")
        place = self._places.pop(name, None)
        if place is None:
            if self._demand is None:
                return None
            place = self._begun(name, self._demand)
        self._places[name] = place
        place.users += 1
        try:
            if place.loading is not None:
                await _end_of(place.loading, deadline, "loaded")
        except BaseException:
            place.leave()
            raise
        assert place.engine is not None
        return Lease(name, place.engine, place)

    async def unload(self, name: str, deadline: float | None) -> bool:
        """Unload the model of that name once no call uses it, and say whether it was loaded.

        Calls that come for it meanwhile wait, and so do loads of other models; it stays when those who asked leave
        before the calls that use it. Raises ModelStaysLoadedError for one that was loaded at the start, DeadlineError
        and OverloadedError.
        """
        place = self._places.get(name)
        if place is not None and place.pinned:
            raise ModelStaysLoadedError(name)
        if place is None or self._demand is None:
            return False
        if name not in self._unloading:
            asking = Users()
            unloading = asyncio.create_task(self._unload(name, asking, self._demand.loader))
            unloading.add_done_callback(lambda _: self._unloading.pop(name))
            unloading.add_done_callback(_look_at)
            self._unloading[name] = asking, unloading
        asking, unloading = self._unloading[name]
        was_loaded = place.engine is not None  # another may need its room before
        asking.users += 1
        try:
            return await _end_of(unloading, deadline, "unloaded") or was_loaded
        finally:
            asking.leave()

    async def _unload(self, name: str, asking: Users, loader: Executor) -> bool:
        async with self._turn:
            place = self._places.get(name)
            if place is None or place.engine is None:  # what waits for its own load comes from the folder anyway
                return False
            if not asking.users:
                raise OverloadedError(f"The model {name!r} stays loaded: it was not its turn.", "Retry with back-off.")
            engines = await self._emptied({name: place}, asking, f"The model {name!r} stays loaded: it is in use.")
            await asyncio.get_running_loop().run_in_executor(loader, let_go, engines)
        log.info("Unloaded a model as it was asked to", model=name)
        return True

    def _begun(self, name: str, demand: Demand) -> Place:
        loads = sum(place.loading is not None for place in self._places.values())
        if loads >= MAX_LOADS:
            raise OverloadedError(
                f"{loads} models are being loaded, as many as may be at once.", "Retry with back-off.", model=name
            )
        place = Place()
        place.loading = asyncio.create_task(self._load(name, place, demand))
        place.loading.add_done_callback(_look_at)
        return place

    async def _load(self, name: str, place: Place, demand: Demand) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with self._turn:
                started = time.monotonic()
                size_bytes = await loop.run_in_executor(demand.loader, size_of, demand.folder, name)
                self._chosen(name, size_bytes, demand.max_bytes)  # else all of its files would be read in vain
                make_room = partial(self._make_room_for, loop, name, demand.max_bytes)
                engine = await loop.run_in_executor(demand.loader, load, demand.folder, name, make_room)
                place.size_bytes = engine.bundle.size_bytes
        except BaseException as error:
            del self._places[name]
            # It keeps the error, which keeps this frame: else all of it, models too, would wait for the collector.
            place.loading = None
            if isinstance(error, _OF_BUNDLES):
                log.warning("A model could not be loaded", model=name, reason=error.reason, remedy=error.remedy)
            raise
        place.engine, place.loading = engine, None
        self._remember(engine)
        seconds = round(time.monotonic() - started, 3)
        log.info("Loaded a model", model=name, size_bytes=place.size_bytes, seconds=seconds)

    def _make_room_for(self, loop: asyncio.AbstractEventLoop, name: str, max_bytes: int, size_bytes: int) -> None:
        """In the loader: have room made for so many bytes, and give the memory back. Raises what _chosen does."""
        let_go(asyncio.run_coroutine_threadsafe(self._forgotten(name, size_bytes, max_bytes), loop).result())

    async def _forgotten(self, name: str, size_bytes: int, max_bytes: int) -> list[Engine]:
        """The last references to the models that make room for another, when the calls that use them are over."""
        chosen = self._chosen(name, size_bytes, max_bytes)
        problem = f"The load of the model {name!r} was given up: what it needs the room of is in use."
        engines = await self._emptied(chosen, self._places[name], problem)
        for other in chosen:
            log.info("Unloaded a model", model=other, in_favour_of=name)
        return engines

    async def _emptied(self, chosen: Mapping[str, Place], waiting: Users, problem: str) -> list[Engine]:
        """The last references to these models, once their calls are over; they take no more meanwhile.

        waiting: for this. Raises OverloadedError with that problem, and they stay, if nobody waits any more while they
        are in use.
        """
        left, settled = asyncio.Event(), asyncio.get_running_loop().create_future()
        for place in chosen.values():
            place.going, place.left = settled, left
        waiting.left = left
        try:
            while any(place.users for place in chosen.values()):
                if not waiting.users:
                    raise OverloadedError(problem, "Retry with back-off.")
                left.clear()
                await left.wait()
            engines = []
            for name, place in chosen.items():
                if place.engine is not None:
                    engines.append(place.engine)
                place.engine = None  # a lease that is over may know the place still
                del self._places[name]
            return engines
        finally:
            for place in chosen.values():
                place.going = None
            settled.set_result(None)

    def _chosen(self, name: str, size_bytes: int, max_bytes: int) -> dict[str, Place]:
        """The models that make room for so many bytes: as many as needed, those in use last, then as they were used.

        Raises ModelTooLargeError where all that may go would not suffice.
        """
        room_bytes = max_bytes - sum(place.size_bytes for place in self._places.values())
        others = [item for item in self._places.items() if item[1].engine is not None and not item[1].pinned]
        chosen: dict[str, Place] = {}
        for other, place in sorted(others, key=lambda item: item[1].users > 0):
            if room_bytes >= size_bytes:
                break
            chosen[other] = place
            room_bytes += place.size_bytes
        if room_bytes < size_bytes:
            pinned_bytes = sum(place.size_bytes for place in self._places.values() if place.pinned)
            raise ModelTooLargeError(name, size_bytes, max_bytes=max_bytes, pinned_bytes=pinned_bytes)
        return chosen

    def _remember(self, engine: Engine) -> None:
        for precision, fingerprint in engine.bundle.fingerprints.items():
            self.precisions[fingerprint] = precision.value


async def _end_of(changing: asyncio.Future[T], deadline: float | None, how: str) -> T:
    """Wait for what goes on whether its callers stay or not. Raises DeadlineError, and what it raised."""
    try:
        async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
            return await asyncio.shield(changing)
    except TimeoutError:
        raise late(f"The deadline passed while the model was {how}.") from None
    finally:
        del changing  # which keeps its error, which keeps this frame


def _look_at(loading: asyncio.Task[T]) -> None:
    """Take note of an error that no caller stayed to hear, so that asyncio does not call it lost."""
    if not loading.cancelled():
        loading.exception()
