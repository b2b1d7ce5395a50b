"""What Ctrl-C does before anything is begun. It imports next to nothing: until it is there, a traceback is shown."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nearshore.exit_codes import ExitCode


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let SIGINT end the process within the block, which imports: nothing is begun, and nothing is said.

    KeyboardInterrupt could be raised at any line of any library, and some take it for an import that failed. Whoever
    has SIGINT ignored or handled otherwise is left alone.
    """
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not raises or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
