"""One server process in the order of its life: serve, start, loop, stop, close."""

from __future__ import annotations

import nearshore.threads  # noqa: F401  # first: it limits the threads of native libraries  # isort: skip

import asyncio
import contextlib
import faulthandler
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

import structlog
from grpc import aio

from nearshore import __version__, logs
from nearshore.cli.interrupts import SAME_REQUEST_S
from nearshore.closing import LIMIT_S, Closing
from nearshore.errors import NearshoreError
from nearshore.exit_codes import ExitCode, exit_code
from nearshore.garbage import none_collected
from nearshore.metrics import Endpoint, Metrics
from nearshore.opening import Steps, happens, reach_store
from nearshore.resources import allow_open_files, open_threads
from nearshore.served_models import ServedModels
from nearshore.service.admission import Admission
from nearshore.service.calls import Guards
from nearshore.service.health import Health
from nearshore.service.port import bind, local_address
from nearshore.settings import Settings
from nearshore.store.base import Store
from nearshore.store.lock import FolderLock

CHORE_THREADS = 4  # opening, pruning, waiting until everything is loaded
RESTART = "Restart it: what was acknowledged is safe. The lines before this one have the cause."
HANGING = (
    "Nothing is lost: what was acknowledged is safe. See what they wait for: the disk of the data folder, or the "
    "store's disk or missing standby."
)

log = structlog.get_logger(__name__)


def run(settings: Settings) -> ExitCode:
    """Serve until a signal or a failure ends it. What can go wrong at the start is one logged line, no traceback."""
    logs.configure(settings.log.level, settings.log.format)
    faulthandler.enable()
    allow_open_files(settings)
    process = Process(settings)
    try:
        code = asyncio.run(_serve_until_signalled(process))
    except NearshoreError as error:
        log.critical(error.message, remedy=error.remedy, reason=error.reason)
        code = exit_code(error)
    except Exception:
        log.exception("The server ended by a bug", remedy="Report it with this traceback.")
        code = ExitCode.CRASHED
    if process.hanging:  # the interpreter would wait for its threads
        os._exit(code)
    return code


def _import_serving() -> None:
    """Import what is used once the models are loaded: for a third of a second, in which they load.

    Hashing a bundle's files, making its session and running its golden texts leave the interpreter to other threads.
    """
    with none_collected():
        import nearshore.serving  # noqa: F401, PLC0415 -- a third of all imports


async def _serve_until_signalled(process: Process) -> ExitCode:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.end, signal.Signals(number).name)
    return await process.serve()


class Process:
    """The parts of one server and the order in which they begin and end."""

    def __init__(self, settings: Settings, on_serving: Callable[[str], None] = lambda _: None) -> None:
        """Take the settings; nothing is opened before serve(). on_serving is told the address that takes calls."""
        self._settings = settings
        self._on_serving = on_serving
        self._opened = contextlib.ExitStack()  # what the process holds until all else is closed
        self._closing = Closing()
        self._serving = False
        self._health = Health()
        limits = settings.server
        admission = Admission(max_calls=limits.max_concurrent_calls, max_bytes=limits.max_concurrent_bytes)
        self._guards = Guards(admission, Metrics(), limits.max_message_bytes)
        self._waiting: aio.Server | None = None  # on our port while the store cannot be reached
        self._ended = asyncio.Event()
        self._asked_at: float | None = None  # time.monotonic() of the first signal
        self._died = asyncio.Event()
        self._death: BaseException | None = None

    async def serve(self) -> ExitCode:
        """Live. Raises NearshoreError when the server cannot start."""
        with self._opened:
            try:
                if await self._start():
                    await self._loop()
            finally:
                await self._close()
        if self._death is not None:
            return self._tell_of_death()
        log.info("Stopped")
        return ExitCode.OK

    @property
    def hanging(self) -> list[str]:
        """Parts that did not close: after serve() the process has to be ended."""
        return self._closing.hanging

    def end(self, cause: str) -> None:
        """Stop in order; asked again after SAME_REQUEST_S, at once. Call it on the event loop."""
        if self._asked_at is None:  # it may be ending already, for a part of it has died
            log.info("Asked to stop", cause=cause)
            self._asked_at = time.monotonic()
            self._ended.set()
        elif time.monotonic() - self._asked_at > SAME_REQUEST_S:
            log.warning("Ending at once", cause=cause, remedy="Nothing: the second signal asked for it.")
            os._exit(ExitCode.INTERRUPTED)

    async def _start(self) -> bool:
        """Open everything, first what another process may hold: the data folder, the port. False: asked to stop."""
        settings = self._settings
        self._chores = self._open_pool("chore", CHORE_THREADS)
        self._steps = steps = Steps(self._chores, settings.data_dir, self._ended, self._leave)
        lock = await steps.take(lambda: FolderLock.acquire(settings.data_dir))
        self._opened.callback(lock.release)
        self._server, self._port = self._bind(settings.server.port)
        await self._serve_metrics()
        on_death = self._teller_of_death()
        threads = open_threads(settings, self._open_pool)
        # Before the store: nobody says that we live while the model loads, and a broken one is told at once.
        loader = self._open_pool("model", 1)
        imported = steps.begin(_import_serving)
        served = await steps.take(lambda: ServedModels(settings, loader, threads.work, self._guards.metrics))
        self._closing.add("embedder", served.close)
        self._guards.metrics.describe(__version__, served.default_name, served.default.fingerprint())
        await steps.end(imported)
        if self._ended.is_set():
            return False
        from nearshore import serving  # noqa: PLC0415 -- see _import_serving

        store = await self._reach_store(on_death)
        if store is None or self._ended.is_set():
            return False
        options = serving.replica_options(settings)
        replicas = await steps.open(lambda: serving.Replicas.open(store, settings.data_dir, options, on_death))
        self._closing.add("replicas", replicas.close)
        if self._ended.is_set():
            return False
        replicas.start()
        parts = serving.make_parts(settings, store, replicas, served.models, threads)
        read = serving.reader_of(replicas, served, self._guards.admission, self._health)
        self._guards.metrics.read_at_scrape(read)
        await self._take_over()
        serving.add_services(self._server, parts, self._health, self._guards)
        await self._health.begin(serving.SERVICE_NAMES)
        await self._server.start()
        self._serving = True
        self._store, self._replicas, self._models = store, replicas, served.models
        workers, durability = settings.embedding.workers, store.durability
        host, port = settings.server.host, self._port
        serving.announce(host, port, settings.data_dir, served, workers=workers, durability=durability)
        address = local_address(host, port)
        lock.publish(address)
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
        from nearshore import serving  # noqa: PLC0415 -- see _import_serving

        async def open_once() -> Store:
            return await self._steps.open(lambda: serving.open_store(self._settings, on_death))

        async def serve(error: NearshoreError) -> None:
            self._waiting = self._server
            serving.add_refusals(self._waiting, error, self._health, self._guards)
            await self._health.begin(serving.SERVICE_NAMES)
            await self._waiting.start()
            log.info("Waiting for the store", port=self._port)

        serving.tell_of_unused_store(self._settings)
        store = await (reach_store(open_once, serve, self._ended) if self._settings.store.url else open_once())
        if store is not None:
            self._closing.add("store", store.close)
        return store

    async def _take_over(self) -> None:
        """Take the port from the server that told that we wait: as late as can be, for it tells that we live."""
        if self._waiting is not None:
            await self._waiting.stop(None)
            self._waiting = None
            self._server, self._port = self._bind(self._port)

    def _open_pool(self, name: str, threads: int) -> Executor:
        pool = ThreadPoolExecutor(threads, name)
        self._closing.add(f"{name} threads", partial(pool.shutdown, cancel_futures=True))
        return pool

    async def _serve_metrics(self) -> None:
        """Before anything is loaded and until all is closed, so that no scrape fails meanwhile."""
        port = self._settings.metrics.port
        if port:
            host = self._settings.metrics.host or self._settings.server.host
            endpoint = await self._steps.take(lambda: Endpoint.open(self._guards.metrics.registry, host, port))
            self._opened.callback(endpoint.close)
            log.info("Serving metrics", host=host, port=endpoint.port)

    async def _loop(self) -> None:
        from nearshore import serving  # noqa: PLC0415 -- see _import_serving

        async with asyncio.TaskGroup() as tasks:
            ready = serving.become_ready(self._replicas, self._models, self._health, self._chores)
            prune = serving.prune_regularly(self._store, self._replicas, self._settings.store.retention_s, self._chores)
            under_way = [tasks.create_task(chore) for chore in (ready, prune)]
            await self._ended.wait()
            for chore in under_way:
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
        self._guards.stopping.set()
        await self._server.stop(grace_s)

    async def _close(self) -> None:
        """Stop, and close everything within a time; what hangs is named, in the log and in `hanging`."""
        if self._serving:
            await self._stop()
            log.info("Closing", at_most_s=LIMIT_S)
        elif self._waiting is not None:
            await self._waiting.stop(None)
        try:
            await self._closing.close()
        finally:
            if self.hanging:
                log.warning("Ending though parts of the server hang", parts=self.hanging, remedy=HANGING)
                self._opened.pop_all()  # they may still use the data folder: its lock ends with the process

    def _leave(self) -> None:
        """End the process in the middle of the start, as if it had been killed: nothing was acknowledged yet."""
        code = ExitCode.OK
        if self._death is None:
            log.info("Stopped in the middle of the start: there is nothing to finish")
        else:
            code = self._tell_of_death()
        os._exit(code)

    def _tell_of_death(self) -> ExitCode:
        log.error("A part of the server died and took it along", error=repr(self._death), remedy=RESTART)
        return ExitCode.CRASHED

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
