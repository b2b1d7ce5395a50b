"""A server over PostgreSQL, and what breaks under load: the server, PostgreSQL, or both at once.

The rounds are those of kill_rounds. PostgreSQL is stopped in immediate mode: no checkpoint, recovery at the start.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg

from benchmarks import kill_rounds, shared_keys
from benchmarks.server_process import ServerProcess
from tests.postgres import PostgresServer
from tests.tiny_bert import make_bundle

Target = Literal["server", "postgres", "both"]
TARGETS: Sequence[Target] = ("server", "postgres", "both")
PREPARED = "max_prepared_transactions = 5"


@dataclass(frozen=True)
class ServerOnPostgres:
    """A server, its PostgreSQL, and which of them is struck."""

    server: ServerProcess
    postgres: PostgresServer
    url: str
    target: Target

    def strike(self) -> None:
        """Kill -9 the server, stop PostgreSQL at once, or both at the same time."""
        blows = {"server": [self.server.kill], "postgres": [self._stop], "both": [self._stop, self.server.kill]}
        with ThreadPoolExecutor() as executor:
            for struck in [executor.submit(blow) for blow in blows[self.target]]:
                struck.result()

    def _stop(self) -> None:
        self.postgres.stop("immediate")

    def mend(self) -> None:
        """Start again what was struck. A server that lived on has to find back by itself."""
        if self.target != "server":
            self.postgres.start()
        if self.target != "postgres":
            self.server.start()

    def stored_state(self) -> kill_rounds.State:
        """Read by PostgreSQL alone."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(
                "SELECT key, text FROM items WHERE NOT deleted AND collection ="
                " (SELECT id FROM collections WHERE name = %s)",
                (kill_rounds.COLLECTION,),
            ).fetchall()
        return kill_rounds.versions(rows)


def run_rounds(postgres: PostgresServer, folder: Path, target: Target, *, rounds: int) -> list[int]:
    """The rounds in a database of their own, with a tiny model; folder: an empty one. Returns calls a round.

    Raises AssertionError on the first acknowledged write that is lost or resurrected.
    """
    make_bundle(folder / "models")
    url = postgres.create_database()
    environment = {
        "NEARSHORE_STORE__URL": url,
        "NEARSHORE_MODEL_DIR": str(folder / "models"),
        "NEARSHORE_EMBEDDING__MODEL": "tiny",
    }
    with ServerProcess(folder / "data", environment=environment) as server:
        subject = ServerOnPostgres(server, postgres, url, target)
        return kill_rounds.run_rounds(subject, rounds=rounds, seed=1 + TARGETS.index(target))


def prove(folder: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Writers over shared keys for `seconds`, then `rounds` rounds of each kind. folder: an empty one."""
    figures: dict[str, Any] = {}
    with PostgresServer(options=[PREPARED]) as postgres:
        figures["shared_keys"] = asdict(shared_keys.run(postgres.create_database(), folder / "shared", seconds=seconds))
        for target in TARGETS:
            (folder / target).mkdir()
            calls = run_rounds(postgres, folder / target, target, rounds=rounds)
            figures[f"struck: {target}"] = {"rounds": len(calls), "acknowledged_calls": sum(calls)}
    return {**figures, "lost": 0, "resurrected": 0}
