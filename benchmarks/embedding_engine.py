"""The engine alone, over texts that come in bulk calls, as a server that indexes gets them.

python -m benchmarks.embedding_engine fp32|int8 --cores 2 < texts.json
"""

import nearshore.threads  # noqa: F401  # first: it limits the threads of native libraries  # isort: skip

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

from benchmarks.bundles import open_engine
from nearshore.bundle import Precision
from nearshore.embedding import Embedder

CALL_TEXTS = 256
WARM_UP_TEXTS = 64


def embed(engine: Embedder, texts: Sequence[str]) -> None:
    """Queue all calls, then wait for all."""
    calls = [texts[start : start + CALL_TEXTS] for start in range(0, len(texts), CALL_TEXTS)]
    for pending in [engine.submit(call, bulk=True) for call in calls]:
        pending.result()


def main() -> None:
    """Print the seconds that the engine takes for the texts of standard input, a JSON list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("precision", choices=[precision.value for precision in Precision])
    parser.add_argument("--cores", type=int, required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    texts = json.load(sys.stdin)
    with open_engine(Precision(arguments.precision)) as engine:
        embed(engine, texts[:WARM_UP_TEXTS])
        began = time.perf_counter()
        embed(engine, texts)
        print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
