"""How the parts of a process stand, read for its metrics without waiting for any of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from nearshore.metrics import CollectionFigures, Figures
from nearshore.replica import IndexLoadingError, Replicas
from nearshore.served_models import ServedModels
from nearshore.service.admission import Admission
from nearshore.service.health import Health


def reader_of(replicas: Replicas, served: ServedModels, admission: Admission, health: Health) -> Callable[[], Figures]:
    """What a scrape calls: in any thread, while the parts load, work or stop."""

    def read() -> Figures:
        contact_at = replicas.contact_at
        return Figures(
            ready=health.serving,
            calls_in_flight=admission.calls,
            queued_tokens=served.workplace.queued_tokens,
            vector_cache_bytes=served.workplace.cache_bytes,
            model_bytes=served.engines.sizes(),
            store_contact_age_s=None if contact_at is None else time.monotonic() - contact_at,
            collections=list(_loaded(replicas)),
        )

    return read


def _loaded(replicas: Replicas) -> Iterable[CollectionFigures]:
    """Those that have a view: of one that is still being loaded there is nothing to say."""
    for replica in replicas.list():
        try:
            view = replica.view()
        except IndexLoadingError:
            continue
        state, index = replica.state(view), view.index
        yield CollectionFigures(
            name=replica.collection.spec.name,
            documents=index.live,
            sealed_rows=index.sealed_rows,
            tail_rows=index.n - index.sealed_rows,
            dead_rows=index.n - index.live,
            generation=index.generation,
            lag_positions=state.lag,
            lag_s=state.lag_s,
        )
