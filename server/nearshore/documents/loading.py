"""How a model that is not loaded is found and loaded: what blocks, for `engines`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from nearshore.bundle import Bundle
from nearshore.documents.leases import Engine
from nearshore.documents.memory import give_back


class ModelFolder(Protocol):
    """Where bundles lie. Its methods block."""

    def described(self, name: str) -> Bundle:
        """As it would be loaded, by its manifest alone.

        Raises ModelNotFoundError, CorruptBundleError and PrecisionMissingError.
        """

    def load(self, name: str, make_room: Callable[[int], None]) -> Engine:
        """make_room: called for its size in bytes, once its files are verified, and before any is loaded.

        Raises what that, and Embedder.load or Reranker.load do, BundleExchangedError and what described raises.
        """

    def bundles(self) -> list[Bundle]:
        """Those that can be read and asked for, as they would be loaded."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How models are loaded when they are first asked for."""

    folder: ModelFolder
    loader: Executor  # of one thread
    reader: Executor  # looks into the folder, also while a model is loaded
    max_bytes: int  # of all that are loaded, by Bundle.size_bytes


def load(folder: ModelFolder, name: str, make_room: Callable[[int], None]) -> Engine:
    """Load a model, and give back the memory that only that took. Raises what ModelFolder.load does."""
    engine = folder.load(name, make_room)
    give_back()  # half as much as the model
    return engine


def size_of(folder: ModelFolder, name: str) -> int:
    """Bytes of the files that would be loaded. Raises what ModelFolder.described does."""
    return folder.described(name).size_bytes
