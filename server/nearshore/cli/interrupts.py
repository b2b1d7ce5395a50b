"""What Ctrl-C, SIGTERM and SIGHUP do: before anything is begun, and to a command that has something to end in order.

It imports next to nothing: until it is there, Ctrl-C shows a traceback, and process 1 does not heed SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nearshore.exit_codes import ExitCode

SAME_REQUEST_S = 0.5  # coreutils' timeout signals its child, and then the group that the child is in


def heed_sigterm() -> None:
    """Let SIGTERM end process 1, as it ends any other by itself.

    The command of a container is process 1, and the system keeps from that one what it has no handler for: it would
    go on until SIGKILL. Whoever has something to end in order takes the signal later. Others keep what the system
    does, so that a parent sees which signal it was.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


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


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that it tidies up, whoever asked.

    What is ignored stays so (nohup ignores SIGHUP). A signal soon after another is the same request: it must not cut
    short what the first one lets end.
    """
    asked_at = -SAME_REQUEST_S

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked_at
        if time.monotonic() - asked_at <= SAME_REQUEST_S:
            return
        asked_at = time.monotonic()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a job in the background of a script
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])
