"""The metrics of one process, in a registry of its own, so that tests can run several."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from nearshore.metrics import definitions
from nearshore.metrics.definitions import BUCKETS_S, Definition
from nearshore.metrics.figures import Figures, FiguresCollector

OK = "OK"


class CallMeter:
    """Counts the calls of one method: two micros of a call's time, so its series are looked up once. Thread-safe."""

    def __init__(self, method: str, calls: Counter, seconds: Histogram) -> None:
        """Count in these; that there were none yet is told from the start."""
        self._method = method
        self._calls = calls
        self._seconds = seconds.labels(method)
        self._codes = {OK: calls.labels(method, OK)}

    def answered(self, code: str, seconds: float) -> None:
        """One call has ended. code: the name of its gRPC code; seconds: how long it took."""
        child = self._codes.get(code)
        if child is None:
            child = self._codes[code] = self._calls.labels(self._method, code)
        child.inc()
        self._seconds.observe(seconds)


class Metrics:
    """Everything that is counted and read. Thread-safe. An embedding.Observer."""

    def __init__(self) -> None:
        """A registry with all metrics, and the interpreter's and process's own."""
        leave_out_creation_times: Callable[[], None] = disable_created_metrics  # untyped
        leave_out_creation_times()  # lines that nobody reads
        self.registry = CollectorRegistry()
        self._calls = _counter(definitions.CALLS, self.registry)
        self._call_seconds = _histogram(definitions.CALL_SECONDS, self.registry)
        self._build_info = Gauge(
            definitions.BUILD_INFO.name,
            definitions.BUILD_INFO.help,
            definitions.BUILD_INFO.labels,
            registry=self.registry,
        )
        waits = _histogram(definitions.QUEUE_SECONDS, self.registry)
        self._interactive_waits, self._bulk_waits = waits.labels("interactive"), waits.labels("bulk")
        self._texts = _counter(definitions.EMBEDDED_TEXTS, self.registry)
        self._tokens = _counter(definitions.EMBEDDED_TOKENS, self.registry)
        self._cache_hits = _counter(definitions.CACHE_HITS, self.registry)
        self._cache_misses = _counter(definitions.CACHE_MISSES, self.registry)
        self._figures = FiguresCollector()
        self.registry.register(self._figures)
        for collector in (ProcessCollector, GCCollector, PlatformCollector):
            collector(registry=self.registry)

    def describe(self, version: str, model: str, fingerprint: str) -> None:
        """Say which release serves which model."""
        self._build_info.labels(version, model, fingerprint).set(1)

    def read_at_scrape(self, read: Callable[[], Figures]) -> None:
        """From now on each scrape tells what `read` returns; it is called in threads and must not wait for anything."""
        self._figures.read = read

    def calls(self, method: str) -> CallMeter:
        """What counts the calls of a method, "SearchService/Search"."""
        return CallMeter(method, self._calls, self._call_seconds)

    def waited(self, seconds: float, *, bulk: bool) -> None:
        """The first text of a request waited so long for the model."""
        (self._bulk_waits if bulk else self._interactive_waits).observe(seconds)

    def embedded(self, *, texts: int, tokens: int) -> None:
        """A run of the model has ended well."""
        self._texts.inc(texts)
        self._tokens.inc(tokens)

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Of so many texts the vectors were kept, and of so many not."""
        self._cache_hits.inc(hits)
        self._cache_misses.inc(misses)


def _counter(definition: Definition, registry: CollectorRegistry) -> Counter:
    return Counter(definition.name, definition.help, definition.labels, registry=registry)


def _histogram(definition: Definition, registry: CollectorRegistry) -> Histogram:
    return Histogram(definition.name, definition.help, definition.labels, buckets=BUCKETS_S, registry=registry)
