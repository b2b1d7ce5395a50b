"""Waiting for what no event tells."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_S = 20.0  # only a bug reaches it


def eventually(holds: Callable[[], object]) -> None:
    """Wait until it holds, as for what another thread or process does."""
    give_up_at = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
