"""Hears of the commits of other processes, in a thread and over a connection of its own; polling goes on beside it."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable

import psycopg
import structlog

from nearshore.store.postgres.connections import Address
from nearshore.store.postgres.failures import reason_of
from nearshore.store.postgres.patience import Connection

_log = structlog.get_logger(__name__)

CHANNEL = "nearshore_commits"
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_ASK_AFTER_S = 30.0  # of silence, whether the server is there: a frozen one is never heard of again
_MAX_DIGITS = 19  # of a collection's id; anybody may notify, and Python refuses to read thousands of digits
_REMEDY = "Nothing to do here: followers poll meanwhile (index.poll_interval_s), and listening is taken up again."
_REPORT = "Listening is taken up again, and followers poll meanwhile; report it with this traceback."


class Listener:
    """Calls on_commit(collection_id) for what other processes commit."""

    def __init__(self, address: Address, own_process_id: Callable[[], int], on_commit: Callable[[int], None]) -> None:
        """Starts the thread. own_process_id: whose notifications to ignore."""
        self._address = address
        self._own_process_id = own_process_id
        self._on_commit = on_commit
        self._closing = threading.Event()
        self._woken, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="store-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and close its connection."""
        self._closing.set()
        self._waker.send(b"!")
        self._thread.join()
        self._woken.close()
        self._waker.close()

    def _run(self) -> None:
        pause_s, silent = _FIRST_PAUSE_S, False
        while not self._closing.is_set():
            since = time.monotonic()
            try:
                with self._address.connect_listener() as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    silent = False
                    self._listen(connection)
            except (psycopg.Error, OSError) as error:
                if not silent and not self._closing.is_set():
                    _log.warning("store does not hear of commits", error=reason_of(error), remedy=_REMEDY)
                silent = True
            except Exception:  # a thread that is gone would never be missed: polling goes on without it
                _log.exception("store listener met a mistake", remedy=_REPORT)
            pause_s = _FIRST_PAUSE_S if time.monotonic() - since > _LONGEST_PAUSE_S else pause_s * 2
            self._closing.wait(min(pause_s, _LONGEST_PAUSE_S))

    def _listen(self, connection: Connection) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing.is_set():
                heard = {note.payload for note in connection.notifies(timeout=0) if note.pid != self._own_process_id()}
                for payload in heard:
                    if payload.isascii() and payload.isdigit() and len(payload) <= _MAX_DIGITS:
                        self._on_commit(int(payload))
                if not selector.select(_ASK_AFTER_S):
                    connection.execute("SELECT 1")
