"""One server process in the order of its life: serve, start, loop, stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import os
import signal
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from grpc import aio

from nearshore import __version__, logs, threads
from nearshore.assembly import (
    allow_open_files,
    make_parts,
    open_embedder,
    open_store,
    open_threads,
    replica_options,
    tell_of_unused_store,
)
from nearshore.embedding import Embedder, usable_cores
from nearshore.errors import InvalidArgumentError, NearshoreError, StorageFullError
from nearshore.exit_codes import ExitCode
from nearshore.gauges import reader_of
from nearshore.metrics import Endpoint, Metrics
from nearshore.opening import happens, reach_store
from nearshore.replica import IndexLoadingError, Replicas
from nearshore.service.admission import Admission
from nearshore.service.calls import Guards
from nearshore.service.health import Health
from nearshore.service.server import SERVICE_NAMES, add_refusals, add_services, bind, is_loopback, local_address
from nearshore.settings import Settings
from nearshore.store.base import Store
from nearshore.store.errors import DataFolderReadOnlyError
from nearshore.store.lock import FolderLock

Opened = TypeVar("Opened")

PRUNE_INTERVAL_S = 3_600.0
PROGRESS_INTERVAL_S = 5.0
READY_WAIT_S = 0.25  # also how long a stop during loading waits for the thread that waits
RESTART = "Restart it: what was acknowledged is safe. The lines before this one have the cause."
PRUNED_LATER = "It is tried again within the hour; if it goes on, the store grows. See `error`."
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger(__name__)


def run(settings: Settings) -> ExitCode:
    """Serve until a signal or a failure ends it. What can go wrong at the start is one logged line, no traceback."""
    logs.configure(settings.log.level, settings.log.format)
    faulthandler.enable()
    allow_open_files(settings)
    try:
        return asyncio.run(_serve_until_signalled(Process(settings)))
    except NearshoreError as error:
        log.critical(error.message, remedy=error.remedy, reason=error.reason)
        return ExitCode.USAGE if isinstance(error, InvalidArgumentError) else ExitCode.UNAVAILABLE
    except Exception:
        log.exception("The server ended by a bug", remedy="Report it with this traceback.")
        return ExitCode.CRASHED


async def _serve_until_signalled(process: Process) -> ExitCode:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.end, signal.Signals(number).name)
    return await process.serve()


class Process:
    """The parts of one server and the order in which they begin and end."""

    def __init__(self, settings: Settings, on_serving: Callable[[str], None] | None = None) -> None:
        """Take the settings; nothing is opened before serve(). on_serving is told the address that takes calls."""
        self._settings = settings
        self._on_serving = on_serving
        self._opened = contextlib.AsyncExitStack()  # closes what was opened, last first
        self._health = Health()
        limits = settings.server
        admission = Admission(max_calls=limits.max_concurrent_calls, max_bytes=limits.max_concurrent_bytes)
        self._guards = Guards(admission, Metrics(), limits.max_message_bytes)
        self._waiting: aio.Server | None = None  # on our port while the store cannot be reached
        self._ended = asyncio.Event()
        self._died = asyncio.Event()
        self._death: BaseException | None = None

    async def serve(self) -> ExitCode:
        """Live. Raises NearshoreError when the server cannot start."""
        async with self._opened:
            if await self._start():
                await self._loop()
        if self._death is not None:
            log.error("A part of the server died and took it along", error=repr(self._death), remedy=RESTART)
            return ExitCode.CRASHED
        log.info("Stopped")
        return ExitCode.OK

    def end(self, cause: str) -> None:
        """Stop in order; the second time, at once. Call it on the event loop."""
        if self._ended.is_set():
            log.warning("Ending at once", cause=cause, remedy="Nothing: the second signal asked for it.")
            os._exit(ExitCode.INTERRUPTED)
        log.info("Asked to stop", cause=cause)
        self._ended.set()

    async def _start(self) -> bool:
        """Open everything, first what another process may hold: the data folder, the port. False: asked to stop."""
        settings = self._settings
        lock = await self._open(lambda: FolderLock.acquire(settings.data_dir))
        self._opened.callback(lock.release)
        self._server, self._port = self._bind(settings.server.port)
        await self._serve_metrics()
        on_death = self._teller_of_death()
        # Before the store: nobody says that we live while the model loads, and a broken one is told at once.
        embedder = await self._open(lambda: open_embedder(settings, self._guards.metrics))
        self._opened.push_async_callback(asyncio.to_thread, embedder.close)
        self._guards.metrics.describe(__version__, embedder.bundle.manifest.name, embedder.fingerprint())
        store = await self._reach_store(on_death)
        if store is None:
            return False
        options = replica_options(settings)
        replicas = await self._open(lambda: Replicas.open(store, settings.data_dir, options, on_death))
        self._opened.push_async_callback(asyncio.to_thread, replicas.close)
        replicas.start()
        parts = make_parts(settings, store, replicas, embedder, open_threads(settings, self._opened))
        self._guards.metrics.read_at_scrape(reader_of(replicas, embedder, self._guards.admission, self._health))
        await self._take_over()
        add_services(self._server, parts, self._health, self._guards)
        await self._health.begin(SERVICE_NAMES)
        await self._server.start()
        self._opened.push_async_callback(self._stop)
        self._store, self._replicas = store, replicas
        self._announce(embedder)
        address = local_address(settings.server.host, self._port)
        lock.publish(address)
        if self._on_serving is not None:
            self._on_serving(address)
        return True

    def _bind(self, port: int) -> tuple[aio.Server, int]:
        limits = self._settings.server
        return bind(
            limits.host,
            port,
            max_message_bytes=limits.max_message_bytes,
            max_connection_age_s=limits.max_connection_age_s,
            max_connection_age_grace_s=limits.max_connection_age_grace_s,
        )

    async def _reach_store(self, on_death: Callable[[BaseException], None]) -> Store | None:
        """Open the store; None: asked to stop. While PostgreSQL is away, our port tells that we live and wait."""

        async def open_once() -> Store:
            return await self._open(lambda: open_store(self._settings, on_death))

        async def serve(error: NearshoreError) -> None:
            self._waiting = self._server
            self._opened.push_async_callback(self._waiting.stop, None)
            add_refusals(self._waiting, error, self._health, self._guards)
            await self._health.begin(SERVICE_NAMES)
            await self._waiting.start()
            log.info("Waiting for the store", port=self._port)

        tell_of_unused_store(self._settings)
        store = await (reach_store(open_once, serve, self._ended) if self._settings.store.url else open_once())
        if store is not None:
            self._opened.push_async_callback(asyncio.to_thread, store.close)
        return store

    async def _take_over(self) -> None:
        """Take the port from the server that told that we wait: as late as can be, for it tells that we live."""
        if self._waiting is not None:
            await self._waiting.stop(None)
            self._server, self._port = self._bind(self._port)

    async def _serve_metrics(self) -> None:
        """Before anything is loaded and until all is closed, so that no scrape fails meanwhile."""
        port = self._settings.metrics.port
        if port:
            host = self._settings.metrics.host or self._settings.server.host
            endpoint = await self._open(lambda: Endpoint.open(self._guards.metrics.registry, host, port))
            self._opened.callback(endpoint.close)
            log.info("Serving metrics", host=host, port=endpoint.port)

    async def _loop(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            chores = [tasks.create_task(self._become_ready()), tasks.create_task(self._prune_regularly())]
            await self._ended.wait()
            for chore in chores:
                chore.cancel()

    async def _stop(self) -> None:
        """Take no more calls and let those in flight finish; what they use is closed after this returns."""
        drain_s = self._settings.server.drain_s
        if drain_s and self._death is None:
            log.info("Draining: not ready any more, answering still", drain_s=drain_s)
            await self._health.drain()
            await happens(self._died, drain_s)
        grace_s = self._settings.server.grace_s if self._death is None else 0.0
        log.info("Stopping", grace_s=grace_s)
        await self._health.close()
        await self._server.stop(grace_s)

    async def _become_ready(self) -> None:
        """Report how far loading is, and say SERVING once every collection has caught up with the store."""
        next_report = time.monotonic() + PROGRESS_INTERVAL_S
        while not await asyncio.to_thread(self._replicas.ready.wait, READY_WAIT_S):
            if time.monotonic() >= next_report:
                next_report += PROGRESS_INTERVAL_S
                self._report_progress()
        await self._health.set_ready()
        collections, documents = self._replicas.list(), 0
        for replica in collections:
            with contextlib.suppress(IndexLoadingError):  # another process has created it just now
                documents += replica.status().documents
        log.info("Ready", collections=len(collections), documents=documents)

    def _report_progress(self) -> None:
        for progress in self._replicas.progress():
            if not progress.ready:
                log.info(
                    "Loading a collection",
                    collection=progress.collection,
                    rows=progress.rows_read,
                    share=round(progress.share, 3),
                    building=progress.building,
                )

    async def _prune_regularly(self) -> None:
        """Let the store forget tombstones, commits and request ids past their retention."""
        while True:
            for replica in self._replicas.list():
                collection = replica.collection
                try:
                    await asyncio.to_thread(self._store.prune, collection.id, self._settings.store.retention_s)
                except NearshoreError as error:
                    log.warning(
                        "Pruning was put off", collection=collection.spec.name, error=str(error), remedy=PRUNED_LATER
                    )
            await asyncio.sleep(PRUNE_INTERVAL_S)

    async def _open(self, opening: Callable[[], Opened]) -> Opened:
        """Open a part in a thread, so that a signal is seen meanwhile. Raises NearshoreError."""
        try:
            return await asyncio.to_thread(opening)
        except OSError as error:
            folder = str(self._settings.data_dir)
            if error.errno in FULL_DISK:
                raise StorageFullError(f"opening {folder}") from error
            raise DataFolderReadOnlyError(folder, str(error)) from error

    def _teller_of_death(self) -> Callable[[BaseException], None]:
        loop = asyncio.get_running_loop()

        def die(error: BaseException) -> None:
            self._death = self._death or error
            self._ended.set()
            self._died.set()

        def tell(error: BaseException) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending anyway
                loop.call_soon_threadsafe(die, error)

        return tell

    def _announce(self, embedder: Embedder) -> None:
        settings = self._settings
        log.info(
            "Serving",
            version=__version__,
            host=settings.server.host,
            port=self._port,
            data_dir=str(settings.data_dir),
            model=embedder.bundle.manifest.name,
            fingerprint=embedder.fingerprint(),
            workers=settings.embedding.workers or usable_cores(),
            native_threads=threads.THREADS_PER_LIBRARY,
            durability=self._store.durability,
        )
        if not is_loopback(settings.server.host):
            log.warning(
                "Anyone who reaches this address can read, write and delete everything: there is no authentication yet",
                host=settings.server.host,
                remedy="Keep it behind a network policy, or listen on 127.0.0.1.",
            )
