"""A server over PostgreSQL that is killed, PostgreSQL that is stopped at once, and writers that share their keys."""

from pathlib import Path

import pytest

from benchmarks import postgres_rounds, shared_keys
from tests.postgres import PostgresServer


@pytest.mark.parametrize("target", postgres_rounds.TARGETS)
def test_no_acknowledged_write_is_lost_or_resurrected(
    tmp_path: Path, postgres_server: PostgresServer, target: postgres_rounds.Target
) -> None:
    """After each of 10 rounds store, list and search show every acknowledged write, no refused one, nothing else."""
    calls = postgres_rounds.run_rounds(postgres_server, tmp_path, target, rounds=10)
    assert sum(calls) > 50, "the rounds wrote too little to prove anything"


def test_four_processes_over_shared_keys(tmp_path: Path, postgres_url: str) -> None:
    """For a minute of upserts, deletes, rollbacks and lost connections, replica and store follow the last position.

    A write that stays open in another database and an orphan prepared transaction hold nobody up: no token waits for
    more than a second.
    """
    figures = shared_keys.run(postgres_url, tmp_path, seconds=60.0)
    print(figures)
    assert figures.writes > 1_000
    assert figures.rollbacks > 100
    assert figures.ended_backends > 10
    assert figures.longest_token_wait_s <= 1.0
