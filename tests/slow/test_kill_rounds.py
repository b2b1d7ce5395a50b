"""A server that is killed loses nothing that it acknowledged."""

from pathlib import Path

from benchmarks import kill_rounds


def test_no_acknowledged_write_is_lost_or_resurrected_by_kill_9(tmp_path: Path) -> None:
    """After each of 20 kills under load, file, list and search show every acknowledged write and nothing else."""
    calls = kill_rounds.run_on_sqlite(tmp_path / "data", rounds=20)
    assert sum(calls) > 100, "the rounds wrote too little to prove anything"
