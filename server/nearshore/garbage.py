"""The garbage collector while modules are imported. It imports next to nothing: what it is for comes after it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_collected() -> Iterator[None]:
    """Collect no garbage within the block, which imports, and have no later collection look at what is there then.

    What modules consist of stays for as long as the process: the collector would walk it two hundred times during the
    imports, a tenth of their time, and for tens of milliseconds of a serving process whenever it looks at everything.
    The little garbage that there is by then (some thousands of objects) is kept too: use it as a process begins.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
