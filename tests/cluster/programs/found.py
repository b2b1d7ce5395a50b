"""Whether every replica has every document of a JSON lines file: `python found.py HOST COLLECTION FILE`.

Prints what each replica found as a line of JSON; fails when anything is missing from any of them.
"""

import json
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nearshore.client import Client, Query

PORT = 50051
CATCH_UP_S = 60.0
SEARCHED = 500  # whose own text must find them


def main(host: str, collection: str, file: str) -> None:
    rows = {row["id"]: row for row in map(json.loads, Path(file).read_text(encoding="utf-8").splitlines())}
    addresses = sorted({info[4][0] for info in socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)})
    missing_anywhere = 0
    for address in addresses:
        with Client(f"{address}:{PORT}") as client:
            held = settled_count(client, collection, len(rows))
            missing = [name for names in batches(list(rows), 500) for name in client.get(collection, names).missing_ids]
            unfound = 0
            sample = list(rows.values())[:: max(1, len(rows) // SEARCHED)]
            for batch in batches(sample, 50):
                queries = [Query(text=text_of(row), limit=5) for row in batch]
                for row, result in zip(batch, client.batch_search(collection, queries), strict=True):
                    hits = [hit.document for hit in result.hits]
                    unfound += not any(hit.id == row["id"] or hit.text == row["text"] for hit in hits)
        report = {
            "replica": address,
            "count": held,
            "missing": len(missing),
            "searched": len(sample),
            "unfound": unfound,
        }
        print(json.dumps(report), flush=True)
        missing_anywhere += len(missing) + unfound + (held != len(rows))
    sys.exit(bool(missing_anywhere))


def settled_count(client: Client, collection: str, expected: int) -> int:
    """What the replica counts, once it has caught up with writes that have just ended."""
    deadline = time.monotonic() + CATCH_UP_S
    while (held := client.count(collection)) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    return held


def text_of(row: dict[str, Any]) -> str:
    return f"{row['title']} {row['text']}" if row.get("title") else row["text"]


def batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


if __name__ == "__main__":
    main(*sys.argv[1:])
