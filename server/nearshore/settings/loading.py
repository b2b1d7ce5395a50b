"""Where settings come from, and what is said about those that cannot be used."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsError

from nearshore.errors import InvalidSettingsError
from nearshore.settings.model import ENV_PREFIX, Settings, setting_names, variable_of

CONFIG_FILE_VARIABLE = "NEARSHORE_CONFIG"
TEST_PREFIX = "NEARSHORE_TEST_"  # read by tests and benchmarks, whose servers inherit it
LEAST_LIKENESS = 0.6  # of a misspelt name; 1: the same
SECRETS = ("store", "store.url")  # "store": a text where the section belongs
BEHIND = re.compile("(?<=:/).*|(?<=password).*", re.IGNORECASE)  # of a URL or options: a password is there anywhere
# Kubernetes gives each pod variables about the Services of its namespace; one may be called nearshore.
SERVICE_LINK = re.compile(
    r"NEARSHORE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


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


def _refused(message: str) -> InvalidSettingsError:
    return InvalidSettingsError(message, "docs/settings.md names every setting with its range and default.")


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """pydantic-settings reads the variables it knows and passes over a misspelt one in silence."""
    known = [*map(variable_of, setting_names()), *map(variable_of, Settings.model_fields), CONFIG_FILE_VARIABLE]
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
        return f"{name} is no setting.{_suggestion(name, setting_names())}"
    if name in SECRETS or isinstance(problem["input"], Mapping):  # a table may hold one
        given = f"{name} (not shown: it may hold a password)"
    else:
        given = f"{name} is {BEHIND.sub('...', repr(problem['input']))}"
    said = problem["msg"].removeprefix("Value error, ")  # of a validator of ours
    return f"{given}: {said[:1].lower()}{said[1:]}."


def _suggestion(name: str, known: Iterable[str]) -> str:
    """The first of `known` with the same last part, else the closest, where one is close."""
    last = _last_part(name)
    near = [each for each in known if _last_part(each) == last] or _near(name, known)
    return f" Did you mean {near[0]}?" if near else ""


def _near(name: str, known: Iterable[str]) -> list[str]:
    """Those that are like it, the closest first: what all begin with says nothing, and sections are few."""
    bare = name.removeprefix(ENV_PREFIX)
    shares = {}
    for each in known:
        last = _last_part(each)
        shares[each] = min(_likeness(bare, each.removeprefix(ENV_PREFIX)), _likeness(bare[-len(last) :], last))
    close = [each for each, share in shares.items() if share >= LEAST_LIKENESS]
    return sorted(close, key=lambda each: -shares[each])


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _last_part(name: str) -> str:
    return re.split(r"__|\.", name.removeprefix(ENV_PREFIX))[-1]
