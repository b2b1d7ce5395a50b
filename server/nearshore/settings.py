"""Everything an operator can set, in one frozen model. Only `app` and `cli` read it; other layers get plain values.

Order of precedence: command-line flags, environment (NEARSHORE_SERVER__PORT=...), configuration file (TOML), defaults.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from nearshore.errors import InvalidSettingsError

ENV_PREFIX = "NEARSHORE_"
CONFIG_FILE_VARIABLE = "NEARSHORE_CONFIG"
TEST_PREFIX = "NEARSHORE_TEST_"  # read by tests and benchmarks, whose servers inherit it
# Kubernetes gives each pod variables about the Services of its namespace; one may be called nearshore.
SERVICE_LINK = re.compile(
    r"NEARSHORE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def _home() -> Path:
    """Where models and data lie unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "nearshore"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """The gRPC server."""

    host: str = Field(
        default="127.0.0.1", description="Address to listen on. There are no keys yet: loopback unless changed."
    )
    port: int = Field(default=50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    grace_s: float = Field(
        default=10.0, ge=0, le=600, description="Seconds that calls in flight get to finish at shutdown."
    )
    max_message_bytes: int = Field(
        default=64 << 20, ge=1 << 16, le=1 << 30, description="Largest request or answer, in bytes."
    )
    max_concurrent_calls: int = Field(
        default=512, ge=1, description="Calls worked on at once, each with its request in memory; more are refused."
    )
    max_concurrent_bytes: int = Field(
        default=512 << 20, ge=1 << 16, description="Bytes of the requests worked on at once; more are refused."
    )


class EmbeddingSettings(_Section):
    """The model and the engine that runs it."""

    model: str = Field(
        default="all-MiniLM-L6-v2", description="Name of the bundle, in model_dir, that the server serves."
    )
    workers: int = Field(
        default=0, ge=0, le=256, description="Threads that run the model, one text group each; 0: one a core."
    )
    max_run_tokens: int = Field(
        default=512, ge=1, le=1 << 20, description="Tokens that one run of the model takes at most."
    )
    max_queued_tokens: int = Field(
        default=1 << 20, ge=1024, le=1 << 30, description="Tokens waiting at most; more are refused with OVERLOADED."
    )


class IndexSettings(_Section):
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
        default=8 << 30, ge=1 << 20, description="Memory of one index build; one that would take more is not started."
    )
    poll_interval_s: float = Field(
        default=0.25, gt=0, le=60, description="Longest wait between two looks at the store."
    )
    snapshot_interval_s: float = Field(
        default=300.0, ge=1, description="Shortest time between two local snapshots of one collection."
    )


class StoreSettings(_Section):
    """The store of documents."""

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


class LimitSettings(_Section):
    """What a single request may ask for."""

    max_texts: int = Field(default=1_024, ge=1, description="Texts in one Embed or Tokenize call.")
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
    max_read_after: int = Field(default=100, ge=1, description="Write tokens in read_after.")
    max_read_wait_s: float = Field(default=30.0, gt=0, description="Longest wait for read_after, in seconds.")
    max_page_bytes: int = Field(
        default=3_500_000, ge=1 << 16, description="Bytes at which a page of ListDocuments ends."
    )
    max_collections: int = Field(default=1_000, ge=1, description="Collections in one store.")


class LogSettings(_Section):
    """The log, on standard error."""

    level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="Least level that is written."
    )
    format: str = Field(
        default="auto",
        pattern="^(auto|json|console)$",
        description="json, console, or auto: console on a terminal, else json.",
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

    @field_validator("data_dir", "model_dir")
    @classmethod
    def _resolve(cls, folder: Path) -> Path:
        """Absolute, with ~ for the home folder, so that messages name the place and not the way to it."""
        return folder.expanduser().absolute()


def load_settings(config_file: Path | None = None, **flags: Any) -> Settings:
    """Combine flags (given as `section__field` or top-level names; None: not given), environment, file, defaults.

    config_file: TOML; by default the one that NEARSHORE_CONFIG names, else none.
    Raises InvalidSettingsError (INVALID_SETTINGS) for a missing file, an unknown name or an impossible value.
    """
    _refuse_unknown_variables(os.environ)
    if config_file is None and os.environ.get(CONFIG_FILE_VARIABLE):
        config_file = Path(os.environ[CONFIG_FILE_VARIABLE])
    from_file = _read_file(config_file) if config_file is not None else {}

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file)

    try:
        return Sourced(**_nested(flags))
    except ValidationError as error:
        problems = " ".join(_explain(each) for each in error.errors(include_url=False))
        raise _refused(f"The settings cannot be used: {problems}") from error
    except SettingsError as error:
        raise _refused(f"The environment cannot be read: {error}.") from error


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


def _refused(message: str) -> InvalidSettingsError:
    return InvalidSettingsError(message, "docs/settings.md names every setting with its range and default.")


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """pydantic-settings reads the variables it knows and passes over a misspelt one in silence."""
    known = {variable_of(name) for name in setting_names()} | {variable_of(name) for name in Settings.model_fields}
    known.add(CONFIG_FILE_VARIABLE)
    for variable, value in environment.items():
        name = variable.upper()
        if not name.startswith(ENV_PREFIX) or name in known or name.startswith(TEST_PREFIX):
            continue
        if SERVICE_LINK.fullmatch(name) and (not name.endswith("_PORT") or "://" in value or "_SERVICE_" in name):
            continue
        raise _refused(f"The environment variable {variable} is no setting.{_suggestion(name, known)}")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else str(error)
        raise _refused(f"The configuration file {path} cannot be read: {detail}.") from error
    except tomllib.TOMLDecodeError as error:
        raise _refused(f"The configuration file {path} is not valid TOML: {error}.") from error


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None:
            continue
        section, separator, field = name.partition("__")
        if separator:
            values.setdefault(section, {})[field] = value
        else:
            values[section] = value
    return values


def _explain(problem: ErrorDetails) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{name} is no setting.{_suggestion(name, set(setting_names()))}"
    return f"{name} is {problem['input']!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}."


def _suggestion(name: str, known: Set[str]) -> str:
    last = re.split(r"__|\.", name.removeprefix(ENV_PREFIX))[-1]
    same_last = sorted(each for each in known if each.endswith(("__" + last, "." + last)))
    close = same_last or difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""
