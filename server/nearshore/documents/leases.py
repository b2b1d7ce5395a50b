"""Who uses a model: it stays loaded while a call has a lease of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from nearshore.embedding import Embedder, Reranker

Engine = Embedder | Reranker
"""A model that is loaded."""


@dataclass(eq=False, slots=True)
class Users:
    """Calls that use something or wait for it."""

    users: int = 0
    left: asyncio.Event | None = None  # set when the last one leaves

    def leave(self) -> None:
        """A call is over."""
        self.users -= 1
        if self.left is not None and not self.users:
            self.left.set()


@dataclass(eq=False, slots=True)
class Place(Users):
    """A model that is loaded, or being loaded."""

    engine: Engine | None = None
    size_bytes: int = 0
    pinned: bool = False  # loaded at the start, never unloaded
    loading: asyncio.Task[None] | None = None
    going: asyncio.Future[None] | None = None  # until it is settled whether it is unloaded; it takes no calls meanwhile

    @property
    def serving(self) -> Engine | None:
        """The model, where a call that comes now gets it without a wait."""
        return self.engine if self.going is None else None


class Lease:
    """A model that stays loaded while a call uses it: use it in a with block."""

    def __init__(self, name: str, engine: Engine, place: Place) -> None:
        """place: counts this user already."""
        self.name = name
        self._engine: Engine | None = engine
        self._place = place

    @property
    def engine(self) -> Engine:
        """The model, until the lease is over."""
        assert self._engine is not None
        return self._engine

    @property
    def embedder(self) -> Embedder:
        """The model, where whoever leased it has seen that it is one."""
        assert isinstance(self.engine, Embedder)
        return self.engine

    @property
    def reranker(self) -> Reranker:
        """The same for a cross-encoder."""
        assert isinstance(self.engine, Reranker)
        return self.engine

    def __enter__(self) -> Self:
        """The model and its name."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it be unloaded again, whoever still holds the lease."""
        self._engine = None
        self._place.leave()
