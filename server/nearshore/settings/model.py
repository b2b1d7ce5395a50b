"""Everything an operator can set, in one frozen model."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from nearshore.settings.embedding import EmbeddingSettings
from nearshore.settings.section import Section

ENV_PREFIX = "NEARSHORE_"


def _home() -> Path:
    """Where models and data lie unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "nearshore"


class ServerSettings(Section):
    """The gRPC server."""

    host: str = Field(
        default="127.0.0.1", description="Address to listen on. There are no keys yet: loopback unless changed."
    )
    port: int = Field(default=50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    grace_s: float = Field(
        default=10.0, ge=0, le=600, description="Seconds that calls in flight get to finish at shutdown."
    )
    drain_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="Seconds, after a request to stop, in which health says NOT_SERVING and calls are still answered.",
    )
    max_connection_age_s: float = Field(
        default=0.0,
        ge=0,
        description="Seconds after which a connection is asked to end, so that clients look names up again; 0: never.",
    )
    max_connection_age_grace_s: float = Field(
        default=600.0, ge=0, description="Seconds that calls get to finish on a connection that was asked to end."
    )
    max_message_bytes: int = Field(
        default=64 << 20, ge=1 << 16, le=1 << 30, description="Largest request or answer, in bytes."
    )
    max_unread_s: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="Seconds for which an answer with vectors of tokens keeps others from the room for such answers "
        "while its caller does not take it. Then gRPC holds it uncounted, until the caller takes it, its deadline "
        "passes, or its connection ends.",
    )
    max_concurrent_calls: int = Field(
        default=512,
        ge=1,
        description="Calls worked on at once, each with its request in memory; of those that write, or wait for the "
        "store, half as many. More are refused.",
    )
    max_concurrent_bytes: int = Field(
        default=512 << 20,
        ge=1 << 16,
        description="Bytes of the requests worked on at once; of those that write, or wait for the store, half as "
        "many. More are refused.",
    )


class IndexSettings(Section):
    """The derived index of each collection."""

    exact_rows: int = Field(
        default=20_000,
        ge=0,
        le=10_000_000,
        description="Rows up to which kind `auto` searches exactly instead of by a graph.",
    )
    max_tail_rows: int = Field(
        default=10_000,
        ge=100,
        le=1_000_000,
        description="Rows scanned exactly beside the graph before it takes them in.",
    )
    max_dead_share: float = Field(
        default=0.2, gt=0, lt=1, description="Share of dead rows at which the index is rebuilt."
    )
    ef_search: int = Field(default=128, ge=1, le=10_000, description="Candidates that a graph search keeps by default.")
    build_memory_bytes: int = Field(
        default=8 << 30,
        ge=1 << 20,
        description="Memory of one index build, and of what may be written to a collection while its build waits or "
        "runs. A build that would take more is not started; when more is written, reads lag until the build ends.",
    )
    poll_interval_s: float = Field(
        default=0.25, gt=0, le=60, description="Longest wait between two looks at the store."
    )
    snapshot_interval_s: float = Field(
        default=300.0, ge=1, description="Shortest time between two local snapshots of one collection."
    )


class StoreSettings(Section):
    """The store of documents."""

    url: str = Field(
        default="",
        pattern=r"^$|^postgres(ql)?://.",
        repr=False,  # it may hold a password
        description="PostgreSQL as postgresql://user:password@host:port/database?options, without a pooler or with "
        "one in session mode; empty: SQLite in data_dir.",
    )
    max_connections: int = Field(
        default=8,
        ge=1,
        le=1_000,
        description="Connections that one process reads PostgreSQL through at most; three more write, listen, and "
        "look after a slow commit.",
    )
    connect_timeout_s: float = Field(
        default=5.0, gt=0, le=600, description="Seconds that PostgreSQL gets to take or free a connection."
    )
    statement_timeout_s: float = Field(
        default=60.0,
        ge=1,
        le=3_600,
        description="Seconds that PostgreSQL gets for a statement that reads. Where nothing comes for five more, the "
        "connection is given up; one that writes only if the server does not say that it is at work.",
    )
    max_transaction_rows: int = Field(
        default=1_000, ge=1, le=100_000, description="Rows that one transaction writes at most."
    )
    max_transaction_bytes: int = Field(
        default=4 << 20, ge=1 << 16, description="Bytes that one transaction writes at most."
    )
    max_queued_bytes: int = Field(
        default=256 << 20,
        ge=1 << 20,
        description="Bytes waiting to be written at most; more are refused with STORE_OVERLOADED.",
    )
    retention_s: float = Field(
        default=86_400.0, ge=60, description="How long tombstones, commits and request ids are remembered."
    )


class LimitSettings(Section):
    """What a single request may ask for."""

    max_texts: int = Field(default=1_024, ge=1, description="Texts in one Embed, Rerank or Tokenize call.")
    max_documents: int = Field(default=1_000, ge=1, description="Documents or ids in one call.")
    max_queries: int = Field(default=256, ge=1, description="Queries in one BatchSearch.")
    max_limit: int = Field(default=1_000, ge=1, description="Hits that one search returns at most.")
    max_window: int = Field(default=10_000, ge=1, description="offset + limit of one search at most.")
    max_text_bytes: int = Field(
        default=1 << 20,
        ge=1,
        description="Bytes of UTF-8 in one text, in title and text of a document, or in a Tokenize call.",
    )
    max_metadata_keys: int = Field(default=64, ge=0, description="Metadata keys of one document.")
    max_metadata_bytes: int = Field(default=64 << 10, ge=0, description="Bytes of one document's metadata.")
    max_filter_bytes: int = Field(default=8 << 10, ge=1, description="Bytes of one filter.")
    max_read_after: int = Field(
        default=100, ge=2, description="Write tokens in read_after; nearshore.client sends two at most."
    )
    max_read_wait_s: float = Field(default=30.0, gt=0, description="Longest wait for read_after, in seconds.")
    max_page_bytes: int = Field(
        default=3_500_000, ge=1 << 16, description="Bytes at which a page of ListDocuments ends."
    )
    max_collections: int = Field(default=1_000, ge=1, description="Collections in one store.")


class LogSettings(Section):
    """The log, on standard error."""

    level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="Least level that is written."
    )
    format: str = Field(
        default="auto",
        pattern="^(auto|json|console)$",
        description="json, console, or auto: console on a terminal, else json.",
    )


class MetricsSettings(Section):
    """Prometheus metrics, on a port of their own."""

    port: int = Field(default=0, ge=0, le=65535, description="Port that serves /metrics; 0: none does.")
    host: str = Field(default="", description="Address that serves /metrics; empty: that of server.host.")


class Settings(BaseSettings):
    """All settings. Unknown names are refused wherever they come from."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(default_factory=lambda: _home() / "data", description="Folder of the store and snapshots.")
    model_dir: Path = Field(default_factory=lambda: _home() / "models", description="Folder of model bundles.")
    server: ServerSettings = ServerSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    index: IndexSettings = IndexSettings()
    store: StoreSettings = StoreSettings()
    limits: LimitSettings = LimitSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @field_validator("data_dir", "model_dir")
    @classmethod
    def _resolve(cls, folder: Path) -> Path:
        """Absolute, with ~ for the home folder, so that messages name the place and not the way to it."""
        return folder.expanduser().absolute()


def setting_names() -> dict[str, FieldInfo]:
    """Every setting by its dotted name ("server.port"), in the order of the model."""
    names: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names.update({f"{name}.{inner}": each for inner, each in field.annotation.model_fields.items()})
        else:
            names[name] = field
    return names


def variable_of(name: str) -> str:
    """The environment variable of a dotted name: NEARSHORE_SERVER__PORT for server.port."""
    return ENV_PREFIX + name.replace(".", "__").upper()
