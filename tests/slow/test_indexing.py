"""Indexing real passages through a running server, then filters, deletes and updates over them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import corpora, filtered_search, indexing_speed
from benchmarks.server_process import ServerProcess

STEP = 10  # every tenth passage: some 32,000, of every kind


@pytest.fixture(scope="module")
def sample(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of real passages."""
    path = tmp_path_factory.mktemp("sample") / "passages.jsonl"
    corpora.write_sample(path, STEP)
    return path


@pytest.fixture(scope="module")
def indexed(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that holds the sample; says what indexing took beside embedding alone."""
    count = sum(1 for _ in corpora.read_passages(sample))
    alone_s = indexing_speed.embed_alone_in_own_process(sample)
    # A low threshold, so that so few passages are searched through a graph, as many more would be.
    environment = {"NEARSHORE_INDEX__EXACT_ROWS": "5000", "NEARSHORE_INDEX__MAX_TAIL_ROWS": "2000"}
    with ServerProcess(tmp_path_factory.mktemp("server") / "data", environment=environment) as server:
        indexed_s = indexing_speed.index_through(server, sample, count)
        print(f"\n{count} passages: embedding alone {alone_s:.1f} s, indexed {indexed_s:.1f} s, ", end="")
        print(f"ratio {indexed_s / alone_s:.3f}")
        yield server


def test_every_passage_is_found_by_its_own_text(indexed: ServerProcess, sample: Path) -> None:
    """After `nearshore index` ends, documents are counted in full and a passage's own text finds it."""
    rows = list(corpora.read_passages(sample))
    with indexed.client() as client:
        assert client.count(indexing_speed.COLLECTION) == len(rows)
        for row in [*rows[::2000], rows[-1]]:
            text = f"{row['title']} {row['text']}" if row["title"] else row["text"]
            hits = client.search(indexing_speed.COLLECTION, text).hits
            best = hits[0].score
            assert row["id"] in {hit.document.id for hit in hits if hit.score >= best - 1e-6}


def test_filters_keep_recall_and_lose_no_hit(indexed: ServerProcess, sample: Path) -> None:
    """recall@10 is at least 0.98 for every filter, with and against it, and no hit is missing."""
    with indexed.client() as client:
        figures = filtered_search.measure(client, corpora.read_passages(sample), queries=100)
    for figure in figures:
        print(figure)
        assert figure.recall_at_10 >= 0.98, figure
        assert figure.fewest_missing == 0, figure


def test_a_search_sees_exactly_one_version_of_a_document_being_replaced(indexed: ServerProcess) -> None:
    """While documents are replaced, no answer has both versions of one and none has neither."""
    figures = filtered_search.search_while_updating(indexed.address)
    assert figures.searches > 100
    assert figures.both == 0
    assert figures.neither == 0


def test_deleting_the_nearest_keeps_recall(indexed: ServerProcess, sample: Path) -> None:
    """With the 130 nearest of 50 queries deleted, ten hits come back and recall@10 is at least 0.98."""
    texts = [row["text"] for row in list(corpora.read_passages(sample))[5::640]][:50]
    with indexed.client() as client:
        recall, missing = filtered_search.recall_after_deletes(client, texts)
    assert recall >= 0.98
    assert missing == 0
