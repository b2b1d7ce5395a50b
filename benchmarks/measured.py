"""Runs a command in a process of its own: how long it took, and the most memory it had.

Run as `python benchmarks/measured.py COMMAND...` it prints both as JSON. That process stays small and imports nothing
else, for what is started begins with the peak of who started it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """What a command took."""

    seconds: float
    cpu_seconds: float  # of all its threads; does not grow with what others do on the machine as much as seconds do
    peak_memory_bytes: int  # resident at most, pages of files that it had mapped included


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end. environment: beside that of this process. Raises RuntimeError where it fails."""
    done = subprocess.run(
        [sys.executable, __file__, *command],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return Measured(**json.loads(done.stdout))


def _main() -> None:
    began = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_memory_bytes": usage.ru_maxrss * 1024}))


if __name__ == "__main__":
    _main()
