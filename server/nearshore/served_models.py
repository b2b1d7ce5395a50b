"""The models of a process, loaded and checked as the settings say: those of a server, or one alone for a command."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

import structlog

from nearshore.bundle import (
    MANIFEST_FILE,
    Bundle,
    BundleExchangedError,
    ModelNotFoundError,
    Precision,
    bundle_names,
    load_bundle,
    read_file,
    read_manifest,
)
from nearshore.documents.engines import Engines
from nearshore.documents.leases import Engine
from nearshore.documents.loading import Demand
from nearshore.documents.models import Models
from nearshore.embedding import Embedder, Observer, Reranker, Reuse, Workplace
from nearshore.errors import OUT_OF_HANDLES, InvalidSettingsError, NearshoreError, OutOfHandlesError
from nearshore.model_names import is_model_name
from nearshore.settings import Settings

LOADS = 3  # of a bundle that is exchanged for another meanwhile
RENAMES_S = 0.2  # much longer than an exchange has no folder

Loaded = TypeVar("Loaded", bound=Engine)

log = structlog.get_logger(__name__)


def open_embedder(settings: Settings) -> Embedder:
    """Load the default model alone and check it against its golden vectors.

    Raises what load_bundle and Embedder.open do, CrossEncoderError among them, and BundleExchangedError.
    """
    engine = settings.embedding
    folder = settings.model_dir / engine.model

    def load() -> Embedder:
        return Embedder.open(
            load_bundle(folder, Precision(engine.precision)),
            workers=engine.workers,
            max_run_tokens=engine.max_run_tokens,
            max_queued_tokens=engine.max_queued_tokens,
            reuse=Reuse(share_in_flight=engine.share_in_flight, cache_bytes=engine.cache_bytes),
        )

    return _loaded_from_one(folder, load)


class BundleFolder:
    """The bundles of model_dir, in the precision that is served; all that are loaded share one workplace."""

    def __init__(self, folder: Path, precision: Precision, workplace: Workplace) -> None:
        """Owns none of them."""
        self._folder = folder
        self._precision = precision
        self._workplace = workplace

    def described(self, name: str) -> Bundle:
        """See ModelFolder."""
        path = self._folder / name
        return Bundle(path, read_manifest(path)).at(self._precision)

    def load(self, name: str, make_room: Callable[[int], None] = lambda _: None) -> Engine:
        """See ModelFolder."""
        path = self._folder / name

        def load() -> Engine:
            bundle = load_bundle(path, self._precision)
            make_room(bundle.size_bytes)
            if not bundle.manifest.is_cross_encoder:
                return Embedder.load(bundle, self._workplace)
            if bundle.precision is not self._precision:
                log.info("A cross-encoder is run in fp32, the only graph that there is of one", model=name)
            return Reranker.load(bundle, self._workplace)

        return _loaded_from_one(path, load)

    def bundles(self) -> list[Bundle]:
        """See ModelFolder."""
        found = []
        for name in filter(is_model_name, bundle_names(self._folder)):
            with contextlib.suppress(NearshoreError):
                found.append(self.described(name))
        return found


class ServedModels:
    """The models of a server, its default among them, and the workers that they share. Close it."""

    def __init__(
        self, settings: Settings, loader: Executor, reader: Executor, observer: Observer | None = None
    ) -> None:
        """Load those that are there from the start; loader, of one thread, loads the others; reader looks for them.

        Raises what BundleFolder.load does, and InvalidSettingsError where they have more than max_model_bytes.
        """
        engine = settings.embedding
        self.workplace = Workplace(
            workers=engine.workers,
            max_run_tokens=engine.max_run_tokens,
            max_queued_tokens=engine.max_queued_tokens,
            reuse=Reuse(share_in_flight=engine.share_in_flight, cache_bytes=engine.cache_bytes),
            observer=observer,
        )
        folder = BundleFolder(settings.model_dir, Precision(engine.precision), self.workplace)
        try:
            names = list(dict.fromkeys([engine.model, *engine.models]))
            _check_size(folder, names, engine.max_model_bytes)
            pinned = {name: folder.load(name) for name in names}
            demand = Demand(folder, loader, reader, engine.max_model_bytes) if engine.on_demand else None
            self.engines = Engines(pinned, demand)
        except BaseException:
            self.workplace.close()
            raise
        self.default, self.default_name = pinned[engine.model], engine.model
        self.models = Models(self.engines, engine.model)

    def close(self) -> None:
        """Fail what waits to be embedded, and stop the workers."""
        self.workplace.close()


def _check_size(folder: BundleFolder, names: Sequence[str], max_bytes: int) -> None:
    """Before anything is loaded: models that are too many would end the process for want of memory."""
    size_bytes = 0
    for name in names:
        with contextlib.suppress(NearshoreError):  # loading it says what is wrong with it
            size_bytes += folder.described(name).size_bytes
    if size_bytes > max_bytes:
        raise InvalidSettingsError(
            f"The models that are loaded at the start ({', '.join(names)}) have {size_bytes:,} bytes, more than "
            f"embedding.max_model_bytes, {max_bytes:,}.",
            "Name fewer in embedding.models, or raise embedding.max_model_bytes, where the memory is there.",
        )


def _loaded_from_one(folder: Path, load: Callable[[], Loaded]) -> Loaded:
    """What load gives, of one bundle: its files are verified and then read again, each by its path.

    bundle.json has the digests of them all, so where it is the same before and after, they all were.
    """
    for attempt in range(LOADS):
        before = _manifest_of(folder)
        try:
            engine = load()
        except NearshoreError as error:
            if _manifest_of(folder) == before:
                if not attempt or attempt == LOADS - 1 or not isinstance(error, ModelNotFoundError):
                    raise
                time.sleep(RENAMES_S)  # it was there a moment ago: deleted, or between the two renames of an exchange
        else:
            with contextlib.ExitStack() as unless_kept:
                unless_kept.callback(engine.close)
                if _manifest_of(folder) == before:
                    unless_kept.pop_all()
                    return engine
        log.info("The bundle was exchanged for another, or deleted, while it was loaded", folder=str(folder))
    raise BundleExchangedError(folder)


def _manifest_of(folder: Path) -> bytes:
    """bundle.json as it is; empty where it is not there, or cannot be read. Raises OutOfHandlesError."""
    file = folder / MANIFEST_FILE
    try:
        return read_file(file)
    except OSError as error:
        if error.errno in OUT_OF_HANDLES:
            raise OutOfHandlesError(f"reading {file}") from error
        return b""
