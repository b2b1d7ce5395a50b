"""The name, type, labels, unit and meaning of every metric; docs/metrics.md is made of these.

Labels are bounded: `method` and `code` by the API, `collection` and `model` by those that exist when one looks.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

# From a search of a small index to the longest wait for a write; steps of about two keep quantiles honest.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)


class Kind(enum.StrEnum):
    """How a metric moves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric."""

    name: str  # as it is scraped
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()


BUILD_INFO = Definition(
    "nearshore_build_info",
    Kind.GAUGE,
    "",
    "Always 1; the labels say which release serves which model. Vectors of two fingerprints cannot be compared.",
    ("version", "model", "fingerprint"),
)
READY = Definition(
    "nearshore_ready",
    Kind.GAUGE,
    "0 or 1",
    "Whether the health service says SERVING: every collection is loaded, and the process has not been asked to stop.",
)
CALLS = Definition(
    "nearshore_calls_total",
    Kind.COUNTER,
    "calls",
    "Calls answered, by method and gRPC code; each batch of EmbedStream is one. RESOURCE_EXHAUSTED counts overload, "
    "CANCELLED callers that left. What gRPC refuses before we see it (a message that is too large, an unknown method) "
    "is not counted.",
    ("method", "code"),
)
CALL_SECONDS = Definition(
    "nearshore_call_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time from the received request to the answer, whatever its code.",
    ("method",),
)
CALLS_IN_FLIGHT = Definition(
    "nearshore_calls_in_flight",
    Kind.GAUGE,
    "calls",
    "Calls that are being worked on; server.max_concurrent_calls is the limit.",
)
QUEUE_TOKENS = Definition(
    "nearshore_queue_tokens",
    Kind.GAUGE,
    "tokens",
    "Tokens that wait to be embedded; embedding.max_queued_tokens is the limit.",
)
QUEUE_SECONDS = Definition(
    "nearshore_queue_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time that the first text of a request waited for the model, from being queued to the start of its run: the sign "
    "of too few cores. A request whose first text joins a run in progress, or is not embedded for it, is not counted. "
    "priority is interactive, or bulk: large upserts and batches, which let the others go first.",
    ("priority",),
)
EMBEDDED_TEXTS = Definition(
    "nearshore_embedded_texts_total",
    Kind.COUNTER,
    "texts",
    "Texts that the model embedded, and pairs that a cross-encoder scored.",
)
EMBEDDED_TOKENS = Definition(
    "nearshore_embedded_tokens_total",
    Kind.COUNTER,
    "tokens",
    "Tokens that the model embedded, special tokens included; its rate is what the cores achieve.",
)
CACHE_HITS = Definition(
    "nearshore_vector_cache_hits_total",
    Kind.COUNTER,
    "texts",
    "Texts of interactive requests whose vectors were kept (embedding.cache_bytes), so that they were not embedded.",
)
CACHE_MISSES = Definition(
    "nearshore_vector_cache_misses_total",
    Kind.COUNTER,
    "texts",
    "Texts of interactive requests whose vectors were not kept; 0 while there is no cache.",
)
CACHE_BYTES = Definition(
    "nearshore_vector_cache_bytes",
    Kind.GAUGE,
    "bytes",
    "Memory of the vectors that are kept, with their texts' token ids; embedding.cache_bytes is the limit.",
)
MODEL_BYTES = Definition(
    "nearshore_model_bytes",
    Kind.GAUGE,
    "bytes",
    "Size, by its files, of each model that is loaded; embedding.max_model_bytes is the limit of the sum. Models that "
    "come and go all the time want a higher one.",
    ("model",),
)
STORE_CONTACT_AGE = Definition(
    "nearshore_store_contact_age_seconds",
    Kind.GAUGE,
    "seconds",
    "Time since the store last answered this process. It grows while the store is away: searches go on, writes are "
    "refused. Absent before the first answer.",
)
FEED_LAG_POSITIONS = Definition(
    "nearshore_feed_lag_positions",
    Kind.GAUGE,
    "commits",
    "Commits that the store is known to have and this replica does not show yet.",
    ("collection",),
)
FEED_LAG_SECONDS = Definition(
    "nearshore_feed_lag_seconds",
    Kind.GAUGE,
    "seconds",
    "Time since this replica heard of the oldest commit that it does not show yet; 0 when it shows all it knows of.",
    ("collection",),
)
DOCUMENTS = Definition(
    "nearshore_documents", Kind.GAUGE, "documents", "Documents that this replica shows.", ("collection",)
)
INDEX_ROWS = Definition(
    "nearshore_index_rows",
    Kind.GAUGE,
    "rows",
    "Rows of the index: sealed (in the graph) and tail (scanned exactly) make up all; dead is the share of both that "
    "a rebuild will drop.",
    ("collection", "part"),
)
INDEX_GENERATION = Definition(
    "nearshore_index_generation",
    Kind.GAUGE,
    "builds",
    "Grows with every newly built index of this process.",
    ("collection",),
)

ALL = (
    BUILD_INFO,
    READY,
    CALLS,
    CALL_SECONDS,
    CALLS_IN_FLIGHT,
    QUEUE_TOKENS,
    QUEUE_SECONDS,
    EMBEDDED_TEXTS,
    EMBEDDED_TOKENS,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_BYTES,
    MODEL_BYTES,
    STORE_CONTACT_AGE,
    FEED_LAG_POSITIONS,
    FEED_LAG_SECONDS,
    DOCUMENTS,
    INDEX_ROWS,
    INDEX_GENERATION,
)
