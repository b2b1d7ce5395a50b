"""SIGKILL to the server of one pod, from outside it: `python kill.py POD`. Needs the node's process ids (hostPID).

From inside the pod the kernel would not deliver it: the server is the first process there.
"""

import os
import signal
import sys
from pathlib import Path


def main(pod: str) -> None:
    killed = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # another account's, or gone
            continue
        if f"HOSTNAME={pod}".encode() in environment and b"serve" in command:
            os.kill(int(process.name), signal.SIGKILL)
            killed += 1
    print(f"killed {killed}")
    sys.exit(killed != 1)


if __name__ == "__main__":
    main(sys.argv[1])
