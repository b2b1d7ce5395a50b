"""Everything an operator can set, in one frozen model. Only `app` and `cli` read it; other layers get plain values.

Order of precedence: command-line flags, environment (NEARSHORE_SERVER__PORT=...), configuration file (TOML), defaults.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from nearshore.errors import InvalidArgumentError

ENV_PREFIX = "NEARSHORE_"
CONFIG_FILE_VARIABLE = "NEARSHORE_CONFIG"


def _home() -> Path:
    """Where models and data lie unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "nearshore"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """The gRPC server."""

    host: str = Field("127.0.0.1", description="Address to listen on. There are no keys yet: loopback unless changed.")
    port: int = Field(50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    grace_s: float = Field(10.0, ge=0, le=600, description="Seconds that calls in flight get to finish at shutdown.")
    max_message_bytes: int = Field(
        64 << 20, ge=1 << 16, le=1 << 30, description="Largest request or answer, in bytes."
    )


class EmbeddingSettings(_Section):
    """The model and the engine that runs it."""

    model: str = Field("all-MiniLM-L6-v2", description="Name of the bundle, in model_dir, that the server serves.")
    workers: int = Field(0, ge=0, le=256, description="Threads that run the model, one text group each; 0: one a core.")
    max_run_tokens: int = Field(512, ge=1, le=1 << 20, description="Tokens that one run of the model takes at most.")
    max_queued_tokens: int = Field(
        1 << 20, ge=1024, le=1 << 30, description="Tokens waiting at most; more are refused with OVERLOADED."
    )


class IndexSettings(_Section):
    """The derived index of each collection."""

    exact_rows: int = Field(
        20_000, ge=0, le=10_000_000, description="Rows up to which kind `auto` searches exactly instead of by a graph."
    )
    max_tail_rows: int = Field(
        10_000, ge=100, le=1_000_000, description="Rows scanned exactly beside the graph before it takes them in."
    )
    max_dead_share: float = Field(0.2, gt=0, lt=1, description="Share of dead rows at which the index is rebuilt.")
    ef_search: int = Field(128, ge=1, le=10_000, description="Candidates that a graph search keeps by default.")
    build_memory_bytes: int = Field(
        8 << 30, ge=1 << 20, description="Memory that one index build may take; beyond it the collection stays as it is."
    )
    poll_interval_s: float = Field(0.25, gt=0, le=60, description="Longest wait between two looks at the store.")
    snapshot_interval_s: float = Field(
        300.0, ge=1, description="Shortest time between two local snapshots of one collection."
    )


class StoreSettings(_Section):
    """The store of documents."""

    max_transaction_rows: int = Field(1_000, ge=1, le=100_000, description="Rows that one transaction writes at most.")
    max_transaction_bytes: int = Field(4 << 20, ge=1 << 16, description="Bytes that one transaction writes at most.")
    max_queued_bytes: int = Field(
        256 << 20, ge=1 << 20, description="Bytes waiting to be written at most; more are refused with OVERLOADED."
    )
    retention_s: float = Field(
        86_400.0, ge=60, description="How long tombstones, commits and request ids are remembered."
    )


class LimitSettings(_Section):
    """What a single request may ask for."""

    max_texts: int = Field(1_024, ge=1, description="Texts in one Embed or Tokenize call.")
    max_documents: int = Field(1_000, ge=1, description="Documents or ids in one call.")
    max_queries: int = Field(256, ge=1, description="Queries in one BatchSearch.")
    max_limit: int = Field(1_000, ge=1, description="Hits that one search returns at most.")
    max_window: int = Field(10_000, ge=1, description="offset + limit of one search at most.")
    max_text_bytes: int = Field(1 << 20, ge=1, description="Bytes of UTF-8 in one document's title and text, or query.")
    max_metadata_keys: int = Field(64, ge=0, description="Metadata keys of one document.")
    max_metadata_bytes: int = Field(64 << 10, ge=0, description="Bytes of one document's metadata.")
    max_filter_bytes: int = Field(8 << 10, ge=1, description="Bytes of one filter.")
    max_read_after: int = Field(100, ge=1, description="Write tokens in read_after.")
    max_read_wait_s: float = Field(30.0, gt=0, description="Longest wait for read_after, in seconds.")
    max_page_bytes: int = Field(3_500_000, ge=1 << 16, description="Bytes at which a page of ListDocuments ends.")
    max_collections: int = Field(1_000, ge=1, description="Collections in one store.")


class LogSettings(_Section):
    """The log, on standard error."""

    level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level that is written.")
    format: str = Field(
        "auto", pattern="^(auto|json|console)$", description="json, console, or auto: console on a terminal, else json."
    )


class Settings(BaseSettings):
    """All settings. Unknown names are refused wherever they come from."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    data_dir: Path = Field(default_factory=lambda: _home() / "data", description="Folder of the store and snapshots.")
    model_dir: Path = Field(default_factory=lambda: _home() / "models", description="Folder of model bundles.")
    server: ServerSettings = ServerSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    index: IndexSettings = IndexSettings()
    store: StoreSettings = StoreSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what load_settings passes, then the environment; no dotenv files, no secret folders."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings


def load_settings(config_file: Path | None = None, **flags: Any) -> Settings:
    """Combine flags (given as `section__field` or top-level names; None: not given), environment, file, defaults.

    Raises InvalidArgumentError (reason INVALID_SETTINGS) for a missing file, an unknown name or an impossible value.
    """
    raise NotImplementedError  # filled in by the service work
