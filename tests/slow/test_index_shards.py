"""Indexing real passages by four processes of which two are killed."""

from pathlib import Path

from benchmarks import corpora, shard_rounds
from tests.postgres import PostgresServer

STEP = 10  # every tenth passage: some 32,000, of every kind


def test_killed_shards_give_the_same_collection(data: Path, postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Ids, documents and vectors are those of one uninterrupted process; a run over them again embeds nothing."""
    source = tmp_path / "passages.jsonl"
    count = corpora.write_sample(source, STEP)
    figures = shard_rounds.run(postgres_server, source, count)
    print(figures)
    assert 0 < figures.embedded_again < count
    assert figures.unchanged_share <= 0.05
