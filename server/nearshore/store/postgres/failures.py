"""Turns what psycopg and PostgreSQL report into this project's errors; no psycopg exception leaves the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psycopg

from nearshore.errors import CommitUnknownError, NearshoreError, StorageFullError
from nearshore.store.errors import (
    StoreCorruptError,
    StoreFailedError,
    StoreFormatError,
    StoreLockedError,
    StoreUnavailableError,
    StoreUrlError,
)

_UNREACHABLE = "08006"
# Why a connection was refused comes as text only, without an SQLSTATE.
_TEXTS: Mapping[str, str] = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "authentication failed": "28000",
    "is not permitted to log in": "28000",
    "permission denied for database": "42501",
    "too many clients": "53300",
    "too many connections": "53300",
    "remaining connection slots": "53300",
    "starting up": "57P03",
    "shutting down": "57P03",
    "not yet accepting connections": "57P03",
    "not accepting": "57P03",
    "session is read-only": "25006",
    "in hot standby mode": "25006",
    "could not translate host name": "08001",
    "failed to resolve host": "08001",
}


@dataclass(frozen=True, slots=True)
class _Advice:
    """What an SQLSTATE means here, and what to do about it."""

    problem: str
    remedy: str
    error: Callable[[str, str], NearshoreError] = StoreUnavailableError


_LOOK = (
    "Look who holds it: SELECT pid, state, xact_start, query FROM pg_stat_activity WHERE state <> 'idle' ORDER BY "
    "xact_start; and SELECT * FROM pg_prepared_xacts; then end it with pg_terminate_backend(pid) or ROLLBACK PREPARED. "
    "This call wrote nothing: a retry is safe."
)
_ADVICE: Mapping[str, _Advice] = {
    "28P01": _Advice(
        "refuses the password of store.url",
        "Put the right user and password into store.url (in a cluster: the Secret that NEARSHORE_STORE__URL comes "
        "from) and restart.",
    ),
    "28000": _Advice(
        "does not let this user in",
        "Check user, database and TLS (sslmode) of store.url, that the role exists and may log in, and pg_hba.conf of "
        "the server.",
    ),
    "3D000": _Advice("has no such database", "Create it (CREATE DATABASE ... ENCODING 'UTF8'), or correct store.url."),
    "42501": _Advice(
        "does not give this user the rights it needs",
        "Make the user of store.url the owner of the database, or GRANT CONNECT, CREATE, TEMPORARY ON DATABASE and "
        "GRANT USAGE, CREATE ON SCHEMA public to it (PostgreSQL 15 and later grant neither by default).",
    ),
    "53300": _Advice(
        "has no connection to spare",
        "Each process takes up to store.max_connections + 3: raise max_connections of the server (or the role's "
        "CONNECTION LIMIT), lower store.max_connections, or run fewer processes.",
    ),
    "53200": _Advice(
        "ran out of memory",
        "Give the server more memory or fewer connections; where the message names a setting "
        "(max_locks_per_transaction), raise it. This call wrote nothing: a retry is safe.",
    ),
    "53400": _Advice(
        "met a limit that its configuration sets",
        "Raise that limit (temp_file_limit, say) for the user of store.url. This call wrote nothing: a retry is safe.",
    ),
    "57P03": _Advice("is starting or stopping", "It is taken up again by itself; retry in a few seconds."),
    "57P01": _Advice("ended the session", "It is taken up again by itself; retry."),
    "25006": _Advice(
        "is read-only: a standby, or default_transaction_read_only is on",
        "Let store.url name the primary (or list all hosts: postgresql://user@host1,host2/database finds it).",
    ),
    "08001": _Advice(
        "cannot be found: its name has no address",
        "Check the host in store.url and the DNS of this machine; it is tried again by itself.",
    ),
    _UNREACHABLE: _Advice(
        "cannot be reached",
        "Check that it runs, host and port of store.url, and network policies between; it is tried again by itself.",
    ),
    "08S01": _Advice(
        "has been silent for too long",
        "Look whether its machine, disk or processes hang; after a fail-over the new primary is found by itself, once "
        "store.url leads to it. If such statements do take so long, raise store.statement_timeout_s.",
    ),
    "55P03": _Advice("has what this needs locked by another session", _LOOK, StoreLockedError),
    "40P01": _Advice("met a deadlock with a foreign session", _LOOK, StoreLockedError),
    "40001": _Advice("could not put this beside another transaction", _LOOK, StoreLockedError),
    "25P03": _Advice(
        "ended the session, which this process had kept waiting in a transaction",
        "The process was stopped or starved of CPU for seconds: give it more. This call wrote nothing: a retry is "
        "safe.",
    ),
    "25P04": _Advice(
        "ended the session, whose transaction took longer than its transaction_timeout",
        "Take the limit away (ALTER ROLE ... SET transaction_timeout = 0, for the user of store.url), and look at the "
        "load and the disk of the PostgreSQL server. This call wrote nothing: a retry is safe.",
    ),
    "57014": _Advice(
        "cancelled a statement that took too long",
        "Look at the load and the disk of the PostgreSQL server; a retry is safe.",
    ),
    "42P01": _Advice(
        "lacks tables of nearshore",
        "If the database is being restored, wait for its end; if it was emptied, restart nearshore: it makes them.",
    ),
    "42703": _Advice(
        "lacks a column of nearshore: a later release has changed the tables beneath this one",
        "Run that release, or a later one; replicas of it take calls meanwhile. This call wrote nothing: a retry is "
        "safe.",
        StoreFormatError,
    ),
}
_LIKE = {"57P02": "57P01", "57P05": "57P01", "53000": "53400"}  # SQLSTATEs that mean what another one does
_REFUSED = ("28P01", "28000", "3D000", "42501")


def translate(error: psycopg.Error, place: str, doing: str) -> NearshoreError:
    """The error to raise for `error`, met at `place` (address.describe) while `doing` ("writing documents")."""
    code = code_of(error)
    advice = _ADVICE.get(code) or _ADVICE.get(_LIKE.get(code, ""))
    if advice is None and code[:2] in ("08", "57", "58"):
        advice = _ADVICE[_UNREACHABLE]
    if advice is not None:
        message = f"PostgreSQL at {place} {advice.problem} ({doing}): {reason_of(error)}."
        return advice.error(message, advice.remedy)
    if code == "53100":
        return StorageFullError(f"{doing} at {place}: {reason_of(error)}", "PostgreSQL")
    if code in ("XX001", "XX002"):
        return StoreCorruptError(
            f"PostgreSQL at {place} reports damaged data ({doing}): {reason_of(error)}.",
            "Stop writing and restore the database from a backup or fail over to a standby.",
        )
    if error.sqlstate:  # the server's word, whatever is wrong there: a replica serves on and asks again
        return StoreFailedError(
            f"PostgreSQL at {place} failed ({doing}): {code} {reason_of(error)}.",
            "This call wrote nothing. Look into the log of the PostgreSQL server, and whether a pooler, another "
            "release of nearshore or an administrator changed what it holds; please report what cannot be explained.",
        )
    return NearshoreError(f"The store made a mistake while {doing}: {reason_of(error)}.", "Please report this.")


def refused(error: psycopg.Error, place: str, doing: str) -> NearshoreError:
    """As translate, at start: what another store.url or a GRANT mends, and no waiting does, is a StoreUrlError."""
    translated = translate(error, place, doing)
    if code_of(error) in _REFUSED:
        return StoreUrlError(translated.message, translated.remedy)
    return translated


def commit_failed(error: psycopg.Error, place: str, doing: str, *, lost: bool) -> NearshoreError:
    """The error to raise for `error`, met with COMMIT on its way. lost: the connection broke, so nobody knows."""
    if lost:
        return CommitUnknownError(f"the connection to PostgreSQL at {place} broke at its commit ({reason_of(error)})")
    return translate(error, place, doing)


def code_of(error: psycopg.Error) -> str:
    """The SQLSTATE, or what the text of a refused connection amounts to."""
    if error.sqlstate:
        return error.sqlstate
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return ""
    text = str(error)
    if "database" in text and "does not exist" in text:
        return "3D000"
    if "role" in text and "does not exist" in text:
        return "28000"
    return next((code for part, code in _TEXTS.items() if part in text), _UNREACHABLE)


def reason_of(error: Exception) -> str:
    """The reason in one line, without what the server adds about itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
