"""Why the metrics cannot be served."""

from __future__ import annotations

from nearshore.errors import UnavailableError


class MetricsPortInUseError(UnavailableError):
    """Another process, or this server itself, listens on metrics.port."""

    reason = "METRICS_PORT_IN_USE"

    def __init__(self, host: str, port: int) -> None:
        """Take both as they were asked for."""
        super().__init__(
            f"Cannot serve the metrics on port {port} of {host}: the port is in use.",
            "Stop the process that listens there, or set metrics.port to another one; 0 serves none.",
            host=host,
            port=port,
        )


class MetricsAddressUnusableError(UnavailableError):
    """metrics.host, or server.host where that is empty, is no address of this machine, or may not be used."""

    reason = "METRICS_ADDRESS_UNUSABLE"

    def __init__(self, host: str, port: int, detail: str) -> None:
        """Take both as they were asked for; detail: what the system said."""
        super().__init__(
            f"Cannot serve the metrics on port {port} of {host}: {detail}.",
            "Set metrics.host to an address of this machine, 0.0.0.0 for all its networks, and metrics.port to a port "
            "from 1024 up, for those below may need a privilege.",
            host=host,
            port=port,
        )
