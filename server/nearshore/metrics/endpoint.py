"""Serves GET /metrics over HTTP, on a port and in threads of its own."""

from __future__ import annotations

import errno
import socket
import socketserver
import sys
import threading
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry, MetricsHandler

from nearshore.metrics.errors import MetricsAddressUnusableError, MetricsPortInUseError

PATH = "/metrics"
TIMEOUT_S = 10.0  # that a scraper may take to send its request or to read the answer
STOP_S = 0.1  # within which the thread notices that it is to end

log = structlog.get_logger(__name__)


class _Handler(MetricsHandler):
    timeout = TIMEOUT_S

    def do_GET(self) -> None:  # noqa: N802 -- named by the library
        if urlsplit(self.path).path != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"Only {PATH} is served here")
            return
        super().do_GET()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = False  # two servers on one port would each get a part of the scrapes

    def __init__(self, family: int, address: Any, registry: CollectorRegistry) -> None:
        self.address_family = family
        super().__init__(address, _Handler.factory(registry))

    def server_bind(self) -> None:
        """Not as the parent, which asks for this machine's name: without a name service that takes seconds."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log like everything else; a scraper that left is none."""
        del request, client_address
        if not isinstance(sys.exception(), OSError):
            log.exception("A scrape failed by a bug", remedy="Report it with this traceback.")


class Endpoint:
    """A port that answers scrapes until it is closed."""

    def __init__(self, server: _Server) -> None:
        """Use open()."""
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(STOP_S,), name="metrics", daemon=True)

    @classmethod
    def open(cls, registry: CollectorRegistry, host: str, port: int) -> Self:
        """Serve `registry` there; 0 takes a free port. Raises MetricsPortInUseError, MetricsAddressUnusableError."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            endpoint = cls(_Server(family, address, registry))
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that no name can have
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise MetricsPortInUseError(host, port) from error
            raise MetricsAddressUnusableError(host, port, getattr(error, "strerror", None) or str(error)) from error
        endpoint._thread.start()
        return endpoint

    @property
    def port(self) -> int:
        """The port that answers."""
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        """Answer no more; frees the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
