"""What a server does beside answering: telling what it serves and when it is ready, and pruning the store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

import structlog

from nearshore import __version__, threads
from nearshore.documents.memory import give_back
from nearshore.documents.models import Models
from nearshore.embedding import usable_cores
from nearshore.errors import NearshoreError
from nearshore.index.filters import filter_parser
from nearshore.replica import IndexLoadingError, Replica, Replicas
from nearshore.served_models import ServedModels
from nearshore.service.health import Health
from nearshore.service.port import is_loopback
from nearshore.store.base import Store

PRUNE_INTERVAL_S = 3_600.0
PROGRESS_INTERVAL_S = 5.0
READY_WAIT_S = 0.25  # also how long a stop during loading waits for the thread that waits
PRUNED_LATER = "It is tried again within the hour; if it goes on, the store grows. See `error`."
NAMED_UNSERVED = 10  # in one line; the others are counted
SERVE_THEM = (
    "Serve what made them, by embedding.precision and by embedding.models or embedding.on_demand; or index their "
    "documents into new collections."
)

log = structlog.get_logger(__name__)


def announce(host: str, port: int, data_dir: Path, served: ServedModels, *, workers: int, durability: str) -> None:
    """Say what is served from now on, where, and how safe it is. durability: what the store says of itself."""
    embedder = served.default
    log.info(
        "Serving",
        version=__version__,
        host=host,
        port=port,
        data_dir=str(data_dir),
        model=served.default_name,
        others=[name for name in served.engines.sizes() if name != served.default_name],
        on_demand=served.engines.loads_others,
        precision=embedder.bundle.precision.value,
        fingerprint=embedder.fingerprint(),
        workers=workers or usable_cores(),
        native_threads=threads.THREADS_PER_LIBRARY,
        durability=durability,
    )
    if not is_loopback(host):
        log.warning(
            "Anyone who reaches this address can read, write and delete everything: there is no authentication yet",
            host=host,
            remedy="Keep it behind a network policy, or listen on 127.0.0.1.",
        )


async def become_ready(replicas: Replicas, models: Models, health: Health, pool: Executor) -> None:
    """Report how far loading is, and say SERVING once every collection has caught up with the store.

    Then tell which collections no text can be searched in.
    """
    loop = asyncio.get_running_loop()
    next_report = time.monotonic() + PROGRESS_INTERVAL_S
    while not await loop.run_in_executor(pool, replicas.ready.wait, READY_WAIT_S):
        await loop.run_in_executor(pool, filter_parser)  # once; what is loaded already can be searched
        if time.monotonic() >= next_report:
            next_report += PROGRESS_INTERVAL_S
            _report_progress(replicas)
    await health.set_ready()
    collections, documents = replicas.list(), 0
    for replica in collections:
        with contextlib.suppress(IndexLoadingError):  # another process has created it just now
            documents += replica.status().documents
    log.info("Ready", collections=len(collections), documents=documents)
    await loop.run_in_executor(pool, filter_parser)  # not for the first filter; no short start waits for it
    await loop.run_in_executor(pool, give_back)
    await _warn_of_unserved(collections, models)


async def _warn_of_unserved(collections: Iterable[Replica], models: Models) -> None:
    """Those of a model, or a precision, that the settings leave out: else only the refused calls would tell."""
    try:
        unserved = await models.unserved(replica.collection.spec for replica in collections)
    except OSError:  # of the model folder: who asks for a model that is not loaded is told
        return
    if unserved:
        unserved.sort(key=lambda spec: spec.name)
        log.warning(
            "Collections take no texts, for the model or precision that made them is not served",
            collections=[f"{spec.name} ({models.made_by(spec)})" for spec in unserved[:NAMED_UNSERVED]],
            more=max(0, len(unserved) - NAMED_UNSERVED),
            remedy=SERVE_THEM,
        )


def _report_progress(replicas: Replicas) -> None:
    for progress in replicas.progress():
        if not progress.ready:
            log.info(
                "Loading a collection",
                collection=progress.collection,
                rows=progress.rows_read,
                share=round(progress.share, 3),
                building=progress.building,
            )


async def prune_regularly(store: Store, replicas: Replicas, retention_s: float, pool: Executor) -> None:
    """Let the store forget tombstones, commits and request ids past their retention."""
    loop = asyncio.get_running_loop()
    while True:
        for replica in replicas.list():
            collection = replica.collection
            try:
                await loop.run_in_executor(pool, store.prune, collection.id, retention_s)
            except NearshoreError as error:
                log.warning(
                    "Pruning was put off", collection=collection.spec.name, error=str(error), remedy=PRUNED_LATER
                )
        await asyncio.sleep(PRUNE_INTERVAL_S)
