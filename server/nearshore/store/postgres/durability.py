"""What an acknowledged write survives, as the server is set up: told once, at start."""

from __future__ import annotations

import structlog

from nearshore.store.postgres.patience import Connection

_log = structlog.get_logger(__name__)

_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")
_LOSES = {
    "fsync": "Set fsync = on in postgresql.conf: as it is, a power cut loses or damages everything.",
    "full_page_writes": "Set full_page_writes = on in postgresql.conf, unless the file system writes pages atomically: "
    "as it is, a power cut can damage the database.",
}


def describe(connection: Connection, place: str) -> str:
    """One phrase about when a write is acknowledged; warns in the log of what can lose acknowledged writes.

    connection: with the settings of connections.WRITER.
    """
    rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(_SETTINGS),))
    found: dict[str, str] = dict(rows.fetchall())
    for name, remedy in _LOSES.items():
        if found.get(name) == "off":
            _log.warning("PostgreSQL can lose acknowledged writes", place=place, setting=f"{name} = off", remedy=remedy)
    commit, standbys = found.get("synchronous_commit"), found.get("synchronous_standby_names")
    survives = "a fail-over to a synchronous standby too" if standbys else "but not a fail-over: no synchronous standby"
    return (
        f"a write is acknowledged after COMMIT in PostgreSQL (synchronous_commit={commit}, fsync={found.get('fsync')}, "
        f"synchronous_standby_names={standbys!r}): it survives a crash, {survives}"
    )
