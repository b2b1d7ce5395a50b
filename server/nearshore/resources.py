"""What a process takes of its machine: open files, and the threads that answer calls."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from nearshore.documents.store_threads import StoreThreads
from nearshore.documents.threads import Threads
from nearshore.embedding import usable_cores
from nearshore.settings import Settings

FILES_PER_COLLECTION = 4  # rows and payload, twice while the index is rebuilt
SPARE_THREADS = 4  # beside one a core: threads that mostly wait for the disk
FILES_BESIDE = 256  # connections of callers and of the store, libraries

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


def open_threads(settings: Settings, open_pool: Callable[[str, int], Executor]) -> Threads:
    """The threads that answer calls, each kind from open_pool(its name, how many), which sees to their end."""
    cores = usable_cores()
    askers = max(cores, settings.store.max_connections) + SPARE_THREADS
    work, searches = open_pool("service", cores + SPARE_THREADS), open_pool("search", cores)
    store, changes = (StoreThreads(open_pool(*each), each[1]) for each in (("store", askers), ("changes", 1)))
    return Threads(work, searches, store, changes)
