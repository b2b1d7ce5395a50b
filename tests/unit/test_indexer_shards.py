"""Sharing the input among processes."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearshore.documents.limits import Limits
from nearshore.records import Document
from nearshore_indexer.batches import batches
from nearshore_indexer.building import Builder
from nearshore_indexer.entries import Item, Place, Rejection
from nearshore_indexer.formats import Input, Reading
from nearshore_indexer.jsonl import JsonLines
from nearshore_indexer.shards import WHOLE, InvalidShardError, Shard, parse_shard
from nearshore_indexer.sources import Format, Reader, check_sources
from nearshore_indexer.text_files import Splitting


def corpus(folder: Path) -> list[str]:
    """Files of every format, with rows that are refused, ids that come twice, and files that cannot be read."""
    rows = [json.dumps({"id": f"j{n % 190}", "text": f"words {n}"}) for n in range(200)]
    rows[50] = "broken"
    rows[70] = json.dumps({"text": "no id"})
    rows[60] = json.dumps({"id": "j60", "text": ""})
    (folder / "a.jsonl").write_text("\n".join(rows))
    lines = [
        "id,text,n",
        *(f"c{n},words {n},{n}" for n in range(100)),
        "ragged",
        ",no id,1",
        "j3,an id of the other file,1",
    ]
    (folder / "b.csv").write_text("\n".join(lines))
    columns = {"id": [f"p{n}" for n in range(1_200)] + ["", "c7"], "text": ["words"] * 1_200 + ["no id", "again"]}
    pq.write_table(pa.table(columns), folder / "c.parquet", row_group_size=500)
    for n in range(12):
        (folder / f"{n}.md").write_text(f"# File {n}\n\n" + "One two three. " * n)
    (folder / "bad.txt").write_bytes(b"\xff")
    (folder / "cut.jsonl.gz").write_bytes(b"\x1f\x8b")
    (folder / "none.csv").write_text("id,text\n")
    return sorted(str(path) for path in folder.iterdir())


def read(files: list[str], shard: Shard) -> tuple[list[Document], list[Rejection], dict[str, int]]:
    """What one process would write and refuse, and how many passages its text files have."""
    splitting = Splitting(16, 0, lambda texts: [len(text.split()) for text in texts])
    given = Input(check_sources(files, Format.AUTO), Reading(Limits(), splitting, shard=shard))
    rejected: list[Rejection] = []
    found = batches(given.reader, size=100, max_bytes=1 << 20, reject=rejected.append)
    return [document for batch in found for document in batch.documents], rejected, given.passage_counts


@pytest.mark.parametrize("count", [2, 3, 16])
def test_shards_together_write_what_one_process_would(count: int, tmp_path: Path) -> None:
    """Every document and every rejection comes from exactly one shard, ids that come twice included."""
    files = corpus(tmp_path)
    documents, rejected, counts = read(files, WHOLE)
    assert len(documents) == len({each.id for each in documents}) > 1_000
    assert len(rejected) > 15
    parts = [read(files, Shard(index, count)) for index in range(count)]
    assert sorted((each for part in parts for each in part[0]), key=lambda each: each.id) == sorted(
        documents, key=lambda each: each.id
    )
    assert Counter(str(each) for part in parts for each in part[1]) == Counter(map(str, rejected))
    assert sum((Counter(part[2]) for part in parts), Counter[str]()) == Counter(counts)


class FailingDisk:
    """Reads lines of a disk that fails behind them."""

    def __init__(self, shard: Shard) -> None:
        self._lines = JsonLines(Builder(Limits(), shard=shard))

    def read(self, stream: BinaryIO, file: str) -> Iterator[Item]:
        yield from self._lines.read(io.BytesIO(stream.readline()), file)
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("index", range(3))
def test_a_shard_tells_that_its_disk_failed(index: int, tmp_path: Path) -> None:
    """Whoever the file is named for: the shard that could not read on is the only one that knows."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "text": "words"}\n{"id": "b", "text": "words"}\n')
    shard = Shard(index, 3)
    items = list(Reader(check_sources([str(path)], Format.AUTO), {Format.JSONL: FailingDisk(shard)}, shard))
    problem = "it cannot be read on: Input/output error; everything up to line 1 was taken"
    assert items[-1] == Rejection(Place(str(path)), problem)


def test_shards_read_every_type_that_one_process_does(tmp_path: Path) -> None:
    """Choosing rows must not fail on what reading them does not."""
    texts = [f"words number {n} of the file" for n in range(30)]
    columns = {
        "id": pa.array([f"p{n}" for n in range(30)], pa.string_view()),
        "text": pa.array(texts, pa.string_view()),
        "tags": pa.array([["a", text] if "9" in text else None for text in texts], pa.list_(pa.string_view())),
        "metadata": pa.array([{"lang": "en"}] * 30, pa.struct([("lang", pa.string_view())])),
        "kind": pa.array(["x", "y", None] * 10).dictionary_encode(),
        "price": pa.array([f"{n}.25" for n in range(30)]).cast(pa.decimal128(5, 2)),
        "days": pa.array([[n] for n in range(30)], pa.list_(pa.int32(), 1)).cast(pa.list_(pa.date32(), 1)),
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    documents, rejected, _ = read([str(path)], WHOLE)
    assert (len(documents), rejected) == (30, [])
    parts = [read([str(path)], Shard(index, 3)) for index in range(3)]
    assert sorted((each for part in parts for each in part[0]), key=lambda each: each.id) == sorted(
        documents, key=lambda each: each.id
    )


def test_a_row_that_cannot_be_converted_is_told_by_its_shard(tmp_path: Path) -> None:
    """It alone is refused, with its id; the rows around it are taken, by one process or by several."""
    numbers = range(20)
    columns = {
        "id": pa.array(numbers, pa.int64()),
        "text": ["words"] * 20,
        "at": pa.array([2**62 if n in {0, 7} else n for n in numbers], pa.timestamp("ms")),
        "day": pa.array([2**31 - 1 if n == 12 else n for n in numbers], pa.int32()).cast(pa.date32()),
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    for shards in ([WHOLE], [Shard(index, 3) for index in range(3)]):
        parts = [read([str(path)], shard) for shard in shards]
        assert {each.id for part in parts for each in part[0]} == {str(n) for n in numbers} - {"0", "7", "12"}
        rejected = [each for part in parts for each in part[1]]
        assert sorted((each.id, each.place.line) for each in rejected) == [("0", 1), ("12", 13), ("7", 8)]
        assert all("out of bounds timestamp" in each.problem for each in rejected)


def test_shards_are_of_nearly_equal_size() -> None:
    """Numbers, padded numbers and words alike."""
    for name in ("{}", "{:08}", "doc-{}", "https://example.com/{}/page", "é{}"):
        shares = Counter(index for n in range(8_000) for index in range(4) if Shard(index, 4).owns(name.format(n)))
        assert sum(shares.values()) == 8_000
        assert min(shares.values()) > 1_600


def test_a_shard_is_named_by_number_or_by_kubernetes() -> None:
    """I/N, or auto/N with the number that an Indexed Job gives its pods."""
    assert parse_shard("0/1", {}) == WHOLE
    assert parse_shard("3/4", {}) == Shard(3, 4)
    assert parse_shard("auto/4", {"JOB_COMPLETION_INDEX": "2"}) == Shard(2, 4)


@pytest.mark.parametrize("text", ["", "4", "4/4", "0/0", "-1/4", "1/x", "auto/4", "1/4/4", "0/10001", "1/99999999999"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    """Before anything is read."""
    with pytest.raises(InvalidShardError):
        parse_shard(text, {"JOB_COMPLETION_INDEX": "four"})
    with pytest.raises(InvalidShardError):
        parse_shard(text, {})
