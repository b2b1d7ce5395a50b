"""A data folder opened by this process itself, without a server: what a bulk job needs of one."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from nearshore.assembly import make_parts, open_store, replica_options
from nearshore.documents.engines import Engines
from nearshore.documents.models import Models
from nearshore.documents.store_threads import StoreThreads
from nearshore.documents.threads import Threads
from nearshore.embedding import usable_cores
from nearshore.errors import ServiceError
from nearshore.replica import Replicas
from nearshore.resources import allow_open_files
from nearshore.served_models import open_embedder
from nearshore.settings import Settings
from nearshore.store.lock import FolderLock

SPARE_THREADS = 16  # writes that wait, one each
UNBOUNDED_BYTES = 1 << 62


class PartDiedError(ServiceError):
    """A thread of the process ended by a bug."""

    reason = "PART_DIED"

    def __init__(self, death: BaseException) -> None:
        """death: what it ended with."""
        super().__init__(
            f"A part of the process died: {death!r}.",
            "What was acknowledged is stored. Run the command again; report this if it comes back.",
        )


class Engine:
    """Lock, store, model, replicas, and what decides about requests. Use it in a with block."""

    def __init__(self, settings: Settings) -> None:
        """Open everything; a with block closes it. Raises DataFolderLockedError and what the parts raise."""
        self.died = threading.Event()
        self._death: BaseException | None = None
        allow_open_files(settings)
        with contextlib.ExitStack() as opened:
            opened.callback(FolderLock.acquire(settings.data_dir).release)
            self.store = store = open_store(settings, self._die)
            opened.callback(store.close)
            self.embedder = open_embedder(settings)
            opened.callback(self.embedder.close)
            self.model = settings.embedding.model
            self.models = models = Models(Engines({self.model: self.embedder}), self.model)
            # A bulk job leaves a snapshot whatever its size: the server that starts next must not read it all again.
            options = replica_options(settings, close_snapshot_bytes=UNBOUNDED_BYTES)
            self.replicas = Replicas.open(store, settings.data_dir, options, self._die)
            opened.callback(self.replicas.close)
            count = usable_cores() + SPARE_THREADS
            executor = opened.enter_context(ThreadPoolExecutor(count, "engine"))
            self.replicas.start()
            threads = Threads(executor, executor, StoreThreads(executor, count), StoreThreads(executor, 1))
            self.parts = make_parts(settings, store, self.replicas, models, threads)
            self._opened = opened.pop_all()

    def check(self) -> None:
        """Raise PartDiedError when a thread of the process has ended by a bug."""
        if self._death is not None:
            raise PartDiedError(self._death)

    def close(self) -> None:
        """Write snapshots and close everything."""
        self._opened.close()

    def __enter__(self) -> Self:
        """The engine itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _die(self, death: BaseException) -> None:
        self._death = self._death or death
        self.died.set()
