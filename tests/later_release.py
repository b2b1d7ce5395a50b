"""A release after this one, played by a process of its own: its migration expands the tables, and it fills what is new.

python -m tests.later_release URL COMPATIBLE; then a line "COLLECTION KEY VERSION" for each document to write.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType
from typing import IO, Self

from nearshore.store.postgres import commits, schema
from tests.replica_world import upsert
from tests.servers import ROOT
from tests.stores import open_postgres

# A column in each table, before a default and without one, an index that could tempt the planner, and a table.
STATEMENTS = (
    "ALTER TABLE items ADD COLUMN language text",
    "ALTER TABLE commits ADD COLUMN writer text NOT NULL DEFAULT 'unknown'",
    "ALTER TABLE requests ADD COLUMN client text",
    "ALTER TABLE collections ADD COLUMN description text NOT NULL DEFAULT ''",
    "CREATE INDEX items_language ON items(collection, language, pos)",
    "CREATE INDEX items_live ON items(collection, key) WHERE NOT deleted",
    "CREATE TABLE languages(collection bigint, language text, PRIMARY KEY(collection, language))",
)
LANGUAGE = "fy"


class LaterRelease:
    """The process, from its migration on. End it with a `with` block."""

    def __init__(self, url: str, *, compatible: int = 1) -> None:
        """Start it, and wait until its store is open. compatible: what its migration says of itself."""
        path = os.pathsep.join((str(ROOT), str(ROOT / "server"), str(ROOT / "indexer")))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.later_release", url, str(compatible)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "open\n"

    def write(self, collection_id: int, key: int, version: int) -> int:
        """Write the document of replica_world with this key and version; returns the position."""
        pipe = self._pipe(self._process.stdin)
        pipe.write(f"{collection_id} {key} {version}\n")
        pipe.flush()
        return int(self._read())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe(self._process.stdin).close()
        self._process.wait()
        self._pipe(self._process.stdout).close()

    def _read(self) -> str:
        return self._pipe(self._process.stdout).readline()

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def main() -> None:
    """Open the store and write what standard input names, until it ends."""
    url, compatible = sys.argv[1:]
    schema.MIGRATIONS += (schema.Migration(int(compatible), STATEMENTS),)
    plain = commits._UPSERT
    commits._UPSERT = (
        plain.replace("text, vector)\nSELECT", "text, vector, language)\nSELECT")
        .replace("rows.*", f"rows.*, '{LANGUAGE}'")
        .replace("vector = excluded.vector", "vector = excluded.vector, language = excluded.language")
    )
    store = open_postgres(url)
    print("open", flush=True)
    for line in sys.stdin:
        collection_id, key, version = map(int, line.split())
        print(store.write(collection_id, [upsert(key, version)]).result().commit.position, flush=True)
    store.close()


if __name__ == "__main__":
    main()
