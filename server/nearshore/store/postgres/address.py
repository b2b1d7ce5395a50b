"""Where the PostgreSQL is: its URL as connection parameters, and as text that may be shown."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping

import psycopg
from psycopg.conninfo import conninfo_to_dict

from nearshore.store.errors import StoreUrlError

SCHEMES = ("postgresql://", "postgres://")
EXAMPLE = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"

# What the URL does not say itself. A peer that is gone is noticed within some ten seconds; a standby, whose state may
# be behind and which would take a new write token for one of another history, is not taken for the primary.
_DEFAULTS: Mapping[str, str] = {
    "application_name": "nearshore",
    "client_encoding": "utf8",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "target_session_attrs": "read-write",
}
_MISPLACED = (("host", "@"), ("user", "@"), ("dbname", "@"), ("dbname", "/"))
_PORTS = re.compile(r"[0-9,]*")
_MAX_PORT, _PORT_DIGITS = 65_535, 5
_OPTION = re.compile(r"[A-Za-z_]{1,40}")  # as all names of libpq's are; passwords seldom


def parse(url: str, connect_timeout_s: float) -> dict[str, str]:
    """The parameters of a connection to url. Raises StoreUrlError, which never repeats what it was given."""
    if not url.startswith(SCHEMES):
        raise _unusable("it does not begin with postgresql://")
    given = _read(url)
    if not given.get("dbname"):
        raise _unusable("it names no database")
    return {**_DEFAULTS, "connect_timeout": str(max(1, math.ceil(connect_timeout_s))), **given}


def describe(url: str) -> str:
    """Host, port, database and user of url: what logs and messages may show. Raises StoreUrlError."""
    given = _read(url)
    hosts = (given.get("host") or given.get("hostaddr") or "local socket").split(",")
    ports = (given.get("port") or "5432").split(",")
    ports += ports[-1:] * (len(hosts) - len(ports))
    places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    user = f"{given['user']}@" if given.get("user") else ""
    return f"postgresql://{user}{places}/{given.get('dbname', '')}"


def _read(url: str) -> dict[str, str]:
    given = _parameters(url)
    if given is None and (unknown := _unknown_options(url)):
        raise _unusable(f"libpq has no option {' and no option '.join(unknown)}, which stands behind its ?")
    # What stands in the wrong place may be a part of the password: neither our words nor libpq's may repeat it.
    if (
        given is None
        or any(odd in given.get(part, "") for part, odd in _MISPLACED)
        or not _PORTS.fullmatch(given.get("port", ""))
    ):
        raise _unusable("it is not a URL (a password with @ : / ? # % or a space in it must be percent-encoded)")
    if not all(len(port) <= _PORT_DIGITS and 1 <= int(port) <= _MAX_PORT for port in _ports(given) if port):
        raise _unusable(f"its port is not one from 1 to {_MAX_PORT}")
    return given


def _ports(given: Mapping[str, str]) -> list[str]:
    return given.get("port", "").split(",")


def _parameters(url: str) -> dict[str, str] | None:
    """As libpq reads them; None where it cannot."""
    try:
        return {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    except (psycopg.Error, UnicodeError):
        return None


def _unknown_options(url: str) -> list[str]:
    """Options that libpq does not know, of a URL that is whole without them; none that may be a part of a password."""
    base, _, query = url.partition("?")
    if "@" in query or not (_parameters(base) or {}).get("dbname"):
        return []
    options = (pair.partition("=")[0] for pair in query.split("&") if pair != "ssl=true")  # which libpq takes as JDBC's
    before_password = itertools.takewhile(lambda option: "password" not in option, options)
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return [option for option in before_password if _OPTION.fullmatch(option) and option not in known]


def _unusable(detail: str) -> StoreUrlError:
    return StoreUrlError(
        f"store.url cannot be used: {detail}.",
        f"Write it as {EXAMPLE}, or leave it empty for a store in data_dir.",
    )
