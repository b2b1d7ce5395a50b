"""How long an export takes and how much memory, how soon a server is ready and how much memory it keeps."""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measured import Measured, run
from benchmarks.server_process import ServerProcess


def export(name: str, checkpoint: Path, model_dir: Path, *options: str) -> Measured:
    """`nearshore model get NAME --from FOLDER` in a process of its own; options: further ones, such as --int8."""
    command = [sys.executable, "-m", "nearshore", "model", "get", name, "--from", str(checkpoint), *options]
    return run(command, environment={"NEARSHORE_MODEL_DIR": str(model_dir)})


def serve(name: str, model_dir: Path, data_dir: Path, *, precision: str, starts: int) -> dict[str, Any]:
    """Seconds from spawning a server to health's SERVING, and its memory after it has embedded something."""
    environment = {
        "NEARSHORE_MODEL_DIR": str(model_dir),
        "NEARSHORE_EMBEDDING__MODEL": name,
        "NEARSHORE_EMBEDDING__PRECISION": precision,
    }
    server, ready_s = ServerProcess(data_dir, environment=environment), []
    for _ in range(starts):
        began = time.perf_counter()
        with server:
            ready_s.append(time.perf_counter() - began)
            with server.client() as client:
                client.embed(["How do I rotate the keys?", "Rotate the signing key every ninety days. " * 20])
            memory = server.resident_bytes()
    return {"ready_s": statistics.median(ready_s), "ready_s_of_each": ready_s, "memory_bytes": memory}
