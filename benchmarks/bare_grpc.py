"""A gRPC server that does nothing but run the ONNX session in a thread: what no service in Python can undercut.

    python -m benchmarks.bare_grpc GRAPH

It prints its port and answers /bare.Model/Embed, whatever is sent, with the vector of embedding_direct.QUERY.
"""

import nearshore.threads  # noqa: F401  # first: it limits the threads of native libraries  # isort: skip

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from benchmarks import embedding_direct

SERVICE, METHOD = "bare.Model", "Embed"


@contextmanager
def bare_call(graph: Path) -> Iterator[Callable[[], Any]]:
    """A call of such a server in a process of its own, through a channel of this one."""
    command = [sys.executable, "-m", "benchmarks.bare_grpc", str(graph)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.unary_unary(f"/{SERVICE}/{METHOD}")
            yield lambda: method(embedding_direct.QUERY.encode(), timeout=60.0)
        process.kill()


async def _serve(graph: Path) -> None:
    model = embedding_direct.DirectModel(graph)
    ids = model.tokenize([embedding_direct.QUERY])
    workers = ThreadPoolExecutor(1)

    async def embed(request: bytes, context: Any) -> bytes:
        del request, context
        return (await asyncio.get_running_loop().run_in_executor(workers, model.run, ids)).tobytes()

    server = aio.server()
    handlers: dict[str, Any] = {METHOD: grpc.unary_unary_rpc_method_handler(embed)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
