"""What is read when somebody looks: how things stand, not what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nearshore.metrics import definitions
from nearshore.metrics.definitions import Definition

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CollectionFigures:
    """One collection that can be searched."""

    name: str
    documents: int
    sealed_rows: int  # dead ones included
    tail_rows: int  # dead ones included
    dead_rows: int
    generation: int
    lag_positions: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The process at one moment."""

    ready: bool = False
    calls_in_flight: int = 0
    queued_tokens: int = 0
    vector_cache_bytes: int = 0
    model_bytes: Mapping[str, int] = field(default_factory=dict)  # of those that are loaded
    store_contact_age_s: float | None = None  # None before the first answer
    collections: Sequence[CollectionFigures] = ()


class FiguresCollector(Collector):
    """Turns figures into gauges at each scrape, so that what no longer exists is no longer told."""

    def __init__(self) -> None:
        """Nothing is there to be read yet."""
        self.read: Callable[[], Figures] = Figures

    def describe(self) -> Iterable[Metric]:
        """The gauges without values, so that a scrape can name those it wants; nothing is read."""
        return _gauges(Figures())

    def collect(self) -> Iterable[Metric]:
        """The gauges; none of them when they cannot be read, for the rest of the scrape is worth having."""
        try:
            figures = self.read()
        except Exception:
            log.exception("The gauges could not be read", remedy="This is a bug: report it with this traceback.")
            return []
        return _gauges(figures)


def _gauges(figures: Figures) -> list[Metric]:
    return [*_of_process(figures), *_of_collections(figures.collections)]


def _of_process(figures: Figures) -> Iterable[Metric]:
    yield _gauge(definitions.READY, [((), figures.ready)])
    yield _gauge(definitions.CALLS_IN_FLIGHT, [((), figures.calls_in_flight)])
    yield _gauge(definitions.QUEUE_TOKENS, [((), figures.queued_tokens)])
    yield _gauge(definitions.CACHE_BYTES, [((), figures.vector_cache_bytes)])
    yield _gauge(definitions.MODEL_BYTES, [((name,), size) for name, size in figures.model_bytes.items()])
    age_s = figures.store_contact_age_s
    yield _gauge(definitions.STORE_CONTACT_AGE, [] if age_s is None else [((), age_s)])


def _of_collections(collections: Sequence[CollectionFigures]) -> Iterable[Metric]:
    yield _gauge(definitions.FEED_LAG_POSITIONS, [((each.name,), each.lag_positions) for each in collections])
    yield _gauge(definitions.FEED_LAG_SECONDS, [((each.name,), each.lag_s) for each in collections])
    yield _gauge(definitions.DOCUMENTS, [((each.name,), each.documents) for each in collections])
    rows = [
        ((each.name, part), count)
        for each in collections
        for part, count in (("sealed", each.sealed_rows), ("tail", each.tail_rows), ("dead", each.dead_rows))
    ]
    yield _gauge(definitions.INDEX_ROWS, rows)
    yield _gauge(definitions.INDEX_GENERATION, [((each.name,), each.generation) for each in collections])


def _gauge(definition: Definition, samples: Iterable[tuple[Sequence[str], float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(definition.name, definition.help, labels=definition.labels)
    for labels, value in samples:
        family.add_metric(labels, float(value))
    return family
