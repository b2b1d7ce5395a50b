"""What the processor can do that changes how products in 8 bits have to be computed."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def overflows() -> bool:
    """Whether products of 8 bits are added up in 16 on the way: on x86 without VNNI, where two of them may not fit.

    True as well where it cannot be told, for then the result is right, and only slower.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    try:
        flags = next(line for line in _CPUINFO.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return True
    return "vnni" not in flags
