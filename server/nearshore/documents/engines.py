"""The models that are loaded: some from the start, others when first asked for, within a bound on their size.

All is decided on the event loop, so nothing here is locked. What blocks runs in one thread, a load at a time: two at
once could pass the bound together. A model in use is never unloaded; one that a call waits for is in use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Protocol, Self

import structlog

from nearshore.documents.errors import ModelMemoryError
from nearshore.documents.waiting import late, result_of
from nearshore.embedding import Embedder
from nearshore.errors import OverloadedError

MAX_LOADS = 16  # under way or waiting for their turn

log = structlog.get_logger(__name__)


class ModelFolder(Protocol):
    """Where bundles lie. Its methods block."""

    def size_bytes(self, name: str) -> int:
        """What loading it will count. Raises ModelNotFoundError, CorruptBundleError, PrecisionMissingError."""

    def load(self, name: str) -> Embedder:
        """Raises what Embedder.load does, BundleExchangedError and what size_bytes raises."""

    def names_of(self, fingerprint: str) -> list[str]:
        """The bundles whose vectors mean this."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How models are loaded when they are first asked for."""

    folder: ModelFolder
    thread: Executor  # of one thread
    max_bytes: int  # of all that are loaded, by Bundle.size_bytes


@dataclass(eq=False, slots=True)
class _Place:
    """A model that is loaded, or being loaded."""

    embedder: Embedder | None = None
    size_bytes: int = 0
    pinned: bool = False  # loaded at the start, never unloaded
    users: int = 0  # calls that use it or wait for it
    loading: asyncio.Task[None] | None = None


class Lease:
    """A model that stays loaded while a call uses it: use it in a with block."""

    def __init__(self, name: str, embedder: Embedder, place: _Place) -> None:
        """place: counts this user already."""
        self.name = name
        self.embedder = embedder
        self._place = place

    def __enter__(self) -> Self:
        """The model's name and embedder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it be unloaded again."""
        self._place.users -= 1


class Engines:
    """Finds and loads models by name. Its methods are called on one event loop, except where they say otherwise."""

    def __init__(self, pinned: Mapping[str, Embedder], demand: Demand | None = None) -> None:
        """pinned: loaded for good, by name; demand: None where no other is ever loaded. Owns none of them."""
        self._places = {  # the one that was used last is last
            name: _Place(embedder, embedder.bundle.size_bytes, pinned=True) for name, embedder in pinned.items()
        }
        self._demand = demand
        self._turn = asyncio.Lock()  # to load
        self.precisions: dict[str, str] = {}
        """In which precision vectors of a fingerprint are made, as far as models that were ever loaded tell."""
        for embedder in pinned.values():
            self._remember(embedder)

    @property
    def loads_others(self) -> bool:
        """Whether a model that is not loaded can be."""
        return self._demand is not None

    def loaded(self) -> Iterator[tuple[str, Embedder]]:
        """Names and models, in any thread."""
        for name, place in list(self._places.items()):
            if place.embedder is not None:
                yield name, place.embedder

    def sizes(self) -> dict[str, int]:
        """Bytes of the files of each model that is loaded, in any thread."""
        return {name: place.size_bytes for name, place in list(self._places.items()) if place.embedder is not None}

    async def names_of(self, fingerprint: str, deadline: float | None) -> list[str]:
        """The bundles that could be loaded whose vectors mean this. Raises DeadlineError."""
        if self._demand is None:
            return []
        looking = self._demand.thread.submit(self._demand.folder.names_of, fingerprint)
        return await result_of(looking, deadline, "the model folder was read")

    async def lease(self, name: str, deadline: float | None) -> Lease | None:
        """The model of that name, loaded first if need be; None where it is not loaded and cannot be.

        A load goes on though its callers leave, and one that failed is tried again by the next call. Raises
        DeadlineError, OverloadedError, ModelMemoryError and what ModelFolder raises.
        """
        place = self._places.pop(name, None)
        if place is None:
            if self._demand is None:
                return None
            place = self._begun(name, self._demand)
        self._places[name] = place
        place.users += 1
        try:
            if place.loading is not None:
                await _end_of(place.loading, deadline)
        except BaseException:
            place.users -= 1
            raise
        assert place.embedder is not None
        return Lease(name, place.embedder, place)

    def _begun(self, name: str, demand: Demand) -> _Place:
        loads = sum(place.loading is not None for place in self._places.values())
        if loads >= MAX_LOADS:
            raise OverloadedError(
                f"{loads} models are being loaded, as many as may be at once.", "Retry with back-off.", model=name
            )
        place = _Place()
        place.loading = asyncio.create_task(self._load(name, place, demand))
        place.loading.add_done_callback(_look_at)
        return place

    async def _load(self, name: str, place: _Place, demand: Demand) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with self._turn:
                started = time.monotonic()
                size_bytes = await loop.run_in_executor(demand.thread, demand.folder.size_bytes, name)
                unloaded = self._make_room(name, size_bytes, demand.max_bytes)
                load = partial(_exchange, unloaded, demand.folder, name)
                embedder, place.size_bytes = await loop.run_in_executor(demand.thread, load)
        except BaseException:
            del self._places[name]
            raise
        place.embedder, place.loading = embedder, None
        self._remember(embedder)
        seconds = round(time.monotonic() - started, 3)
        log.info("Loaded a model", model=name, size_bytes=place.size_bytes, seconds=seconds)

    def _make_room(self, name: str, size_bytes: int, max_bytes: int) -> list[Embedder]:
        """Forget the models that were longest unused, as many as needed, and return them: the last references.

        Raises ModelMemoryError, and forgets none, where that would not suffice.
        """
        room_bytes = max_bytes - sum(place.size_bytes for place in self._places.values())
        chosen: dict[str, Embedder] = {}
        for other, place in self._places.items():
            if room_bytes >= size_bytes:
                break
            if place.embedder is not None and not place.pinned and not place.users:
                chosen[other] = place.embedder
                room_bytes += place.size_bytes
        if room_bytes < size_bytes:
            pinned_bytes = sum(place.size_bytes for place in self._places.values() if place.pinned)
            raise ModelMemoryError(name, size_bytes, max_bytes=max_bytes, pinned_bytes=pinned_bytes)
        for other in chosen:
            del self._places[other]
            log.info("Unloaded a model", model=other, in_favour_of=name)
        return list(chosen.values())

    def _remember(self, embedder: Embedder) -> None:
        for precision, fingerprint in embedder.bundle.fingerprints.items():
            self.precisions[fingerprint] = precision.value


def _exchange(unloaded: list[Embedder], folder: ModelFolder, name: str) -> tuple[Embedder, int]:
    """Give the memory of `unloaded` back, then load another; the second is its size in bytes."""
    unloaded.clear()
    embedder = folder.load(name)
    return embedder, embedder.bundle.size_bytes


async def _end_of(loading: asyncio.Task[None], deadline: float | None) -> None:
    """Wait for a load that goes on whether its callers stay or not. Raises DeadlineError, and what loading raised."""
    try:
        async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
            await asyncio.shield(loading)
    except TimeoutError:
        raise late("The deadline passed while the model was loaded.") from None


def _look_at(loading: asyncio.Task[None]) -> None:
    """Take note of an error that no caller stayed to hear, so that asyncio does not call it lost."""
    if not loading.cancelled():
        loading.exception()
