"""The parts of nearshore put together as the settings say: for the server, and for commands that work without one."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
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
    read_manifest,
)
from nearshore.documents.collections import Collections
from nearshore.documents.documents import Documents
from nearshore.documents.engines import Demand, Engine, Engines
from nearshore.documents.limits import Limits
from nearshore.documents.models import Models
from nearshore.documents.store_threads import StoreThreads
from nearshore.documents.texts import Texts
from nearshore.documents.threads import Threads
from nearshore.embedding import Embedder, Observer, Reranker, Reuse, Workplace, usable_cores
from nearshore.errors import InvalidSettingsError, NearshoreError
from nearshore.index import IndexOptions
from nearshore.model_names import is_model_name
from nearshore.replica import ReplicaOptions, Replicas
from nearshore.search.searcher import Searcher
from nearshore.service.server import Parts
from nearshore.settings import Settings
from nearshore.store.base import Store
from nearshore.store.schema import FILE_NAME
from nearshore.store.sqlite import SqliteStore
from nearshore.store.writer import Limits as WriteLimits

FILES_PER_COLLECTION = 4  # rows and payload, twice while the index is rebuilt
SPARE_THREADS = 4  # beside one a core: threads that mostly wait for the disk
FILES_BESIDE = 256  # connections of callers and of the store, libraries
LOADS = 3  # of a bundle that is exchanged for another meanwhile

Loaded = TypeVar("Loaded", bound=Engine)

log = structlog.get_logger(__name__)


def allow_open_files(settings: Settings) -> None:
    """Let this process open as many files as the system lets it; log where that is few for limits.max_collections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems say "unlimited" and then refuse it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    wanted = FILES_BESIDE + FILES_PER_COLLECTION * settings.limits.max_collections
    if soft != resource.RLIM_INFINITY and soft < wanted:
        log.warning(
            "The system lets this process open few files for limits.max_collections",
            open_files=soft,
            wanted=wanted,
            remedy="Raise the hard limit of open files (ulimit -Hn, LimitNOFILE), or lower limits.max_collections.",
        )


def open_store(settings: Settings, on_death: Callable[[BaseException], None]) -> Store:
    """Open PostgreSQL if store.url names it, else SQLite in the data folder, which the caller has locked then.

    on_death is told when its writing thread dies; the process has to end then. Raises what PostgresStore.open or
    SqliteStore.open does, StoreUnavailableError above all when PostgreSQL cannot be reached right now.
    """
    chosen = settings.store
    if not chosen.url:
        return SqliteStore.open(
            settings.data_dir,
            max_transaction_rows=chosen.max_transaction_rows,
            max_transaction_bytes=chosen.max_transaction_bytes,
            max_queued_bytes=chosen.max_queued_bytes,
            on_death=on_death,
        )
    from nearshore.store.postgres.store import PostgresStore  # noqa: PLC0415 -- 0.15 s that one machine does not need

    return PostgresStore.open(
        chosen.url,
        max_connections=chosen.max_connections,
        connect_timeout_s=chosen.connect_timeout_s,
        statement_timeout_s=chosen.statement_timeout_s,
        limits=WriteLimits(chosen.max_transaction_rows, chosen.max_transaction_bytes, chosen.max_queued_bytes),
        on_death=on_death,
    )


def tell_of_unused_store(settings: Settings) -> None:
    """Log when the data folder holds a store that PostgreSQL takes the place of: its documents would be missed."""
    file = settings.data_dir / FILE_NAME
    if settings.store.url and file.exists():
        log.warning(
            "The SQLite store in the data folder is not used: store.url names PostgreSQL",
            file=str(file),
            remedy="Leave store.url (NEARSHORE_STORE__URL) out to serve it, or delete the file if it is not needed.",
        )


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
                if attempt and isinstance(error, ModelNotFoundError):  # between the two renames of an exchange
                    raise BundleExchangedError(folder) from error
                raise
        else:
            if _manifest_of(folder) == before:
                return engine
            engine.close()
        log.info("The bundle was exchanged for another while it was loaded", folder=str(folder))
    raise BundleExchangedError(folder)


def _manifest_of(folder: Path) -> bytes:
    """bundle.json as it is; empty where it is not there."""
    try:
        return (folder / MANIFEST_FILE).read_bytes()
    except OSError:
        return b""


def replica_options(settings: Settings, *, close_snapshot_bytes: int | None = None) -> ReplicaOptions:
    """The settings of indexes; close_snapshot_bytes: how much a clean close may save, None for the usual."""
    index = settings.index
    options = ReplicaOptions(
        index=IndexOptions(
            exact_rows=index.exact_rows,
            max_tail_rows=index.max_tail_rows,
            max_dead_share=index.max_dead_share,
            build_memory_bytes=index.build_memory_bytes,
        ),
        poll_interval_s=index.poll_interval_s,
        snapshot_interval_s=index.snapshot_interval_s,
    )
    return options if close_snapshot_bytes is None else replace(options, close_snapshot_bytes=close_snapshot_bytes)


def open_threads(settings: Settings, open_pool: Callable[[str, int], Executor]) -> Threads:
    """The threads that answer calls, each kind from open_pool(its name, how many), which sees to their end."""
    cores = usable_cores()
    askers = max(cores, settings.store.max_connections) + SPARE_THREADS
    work, searches = open_pool("service", cores + SPARE_THREADS), open_pool("search", cores)
    store, changes = (StoreThreads(open_pool(*each), each[1]) for each in (("store", askers), ("changes", 1)))
    return Threads(work, searches, store, changes)


def make_parts(settings: Settings, store: Store, replicas: Replicas, models: Models, threads: Threads) -> Parts:
    """What answers calls, made of what was opened; owns none of it."""
    sizes = settings.limits.model_dump(exclude={"max_texts"})
    limits = Limits(**sizes, max_message_bytes=settings.server.max_message_bytes)
    texts = Texts(
        models,
        threads.work,
        max_texts=settings.limits.max_texts,
        max_text_bytes=settings.limits.max_text_bytes,
        max_message_bytes=settings.server.max_message_bytes,
        max_unread_s=settings.server.max_unread_s,
    )
    return Parts(
        texts=texts,
        models=models,
        collections=Collections(replicas, models, limits, threads),
        documents=Documents(store, replicas, models, limits, threads),
        searcher=Searcher(replicas, models, limits, threads, ef_search=settings.index.ef_search),
        work=threads.work,
        searches=threads.searches,
    )
