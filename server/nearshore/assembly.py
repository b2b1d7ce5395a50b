"""The parts of nearshore put together as the settings say: for the server, and for commands that work without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from nearshore.documents.collections import Collections
from nearshore.documents.documents import Documents
from nearshore.documents.limits import Limits
from nearshore.documents.models import Models
from nearshore.documents.texts import Texts
from nearshore.documents.threads import Threads
from nearshore.index import IndexOptions
from nearshore.replica import ReplicaOptions, Replicas
from nearshore.search.searcher import Searcher
from nearshore.service.server import Parts
from nearshore.settings import Settings
from nearshore.store.base import Store
from nearshore.store.schema import FILE_NAME
from nearshore.store.sqlite import SqliteStore
from nearshore.store.writer import Limits as WriteLimits

log = structlog.get_logger(__name__)


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
