"""Reading CSV and Parquet."""

import datetime as dt
import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearshore.documents.limits import Limits
from nearshore.records import Document
from nearshore_indexer.columns import USUAL, Columns
from nearshore_indexer.entries import Entry, Rejection, SourceError
from nearshore_indexer.formats import Input, Reading
from nearshore_indexer.sources import Format, check_sources
from nearshore_indexer.text_files import Splitting

Items = list[Entry | Rejection]


def read(path: Path, columns: Columns = USUAL, numbers: Sequence[str] = (), timestamps: Sequence[str] = ()) -> Items:
    """Everything that reading a file yields."""
    return list(opened(path, columns, numbers, timestamps).reader)


def opened(path: Path, columns: Columns = USUAL, numbers: Sequence[str] = (), timestamps: Sequence[str] = ()) -> Input:
    """A file about to be read."""
    splitting = Splitting(8, 0, lambda texts: [len(text.split()) for text in texts])
    reading = Reading(Limits(), splitting, columns, number_keys=numbers, timestamp_keys=timestamps)
    return Input(check_sources([str(path)], Format.AUTO), reading)


def csv(path: Path, content: str | bytes) -> Path:
    """The path of a file with this in it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def documents(items: Items) -> list[Document]:
    """The documents; fails if anything was rejected."""
    assert not [item for item in items if isinstance(item, Rejection)]
    return [item.document for item in items if isinstance(item, Entry)]


def rejections(items: Items) -> list[tuple[int, str]]:
    """Lines and problems."""
    return [(item.place.line, item.problem) for item in items if isinstance(item, Rejection)]


def test_a_row_is_a_document(tmp_path: Path) -> None:
    """Other columns are metadata, empty cells are none, quoted cells may hold lines; a place is where a row begins."""
    text = '\ufeffid,title,text,parent_id,lang,year\n1,T,"two\nlines, ""quoted""",p,en,2024\n\n2,,plain,,,\n'
    items = read(csv(tmp_path / "a.csv", text))
    assert documents(items) == [
        Document("1", 'two\nlines, "quoted"', "T", "p", {"lang": "en", "year": "2024"}),
        Document("2", "plain"),
    ]
    assert [item.place.line for item in items] == [2, 5]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_shows_the_delimiter(delimiter: str, tmp_path: Path) -> None:
    """Spreadsheets write semicolons where a comma is the decimal point; .tsv has tabs; all may be gzipped."""
    rows = delimiter.join(["id", "text", "lang"]) + "\r\n" + delimiter.join(["1", "words", "en"]) + "\r\n"
    path = csv(tmp_path / "a.tsv.gz", gzip.compress(rows.encode()))
    assert documents(read(path)) == [Document("1", "words", metadata={"lang": "en"})]


def test_columns_have_the_names_that_they_are_given(tmp_path: Path) -> None:
    """An optional column is absent in silence only under its usual name."""
    path = csv(tmp_path / "a.csv", "key,body,head,id\n1,words,T,other\n")
    columns = Columns(id="key", text="body", title="head")
    assert documents(read(path, columns)) == [Document("1", "words", "T", metadata={"id": "other"})]
    assert rejections(read(path, Columns(id="key", text="body", title="none"))) == [
        (0, "there is no column 'none', which --title-column names")
    ]
    assert documents(read(csv(path, "_id,text\n1,words\n"))) == [Document("1", "words")]


def test_strings_become_numbers_where_asked(tmp_path: Path) -> None:
    """Integers where they are, doubles else; what is no number is refused."""
    rows = "id,text,n\n1,a,42\n2,a,-1.5e3\n3,a, 7 \n4,a,many\n5,a,nan\n6,a,\n"
    items = read(csv(tmp_path / "a.csv", rows), numbers=["n"])
    assert [item.document.metadata for item in items if isinstance(item, Entry)] == [
        {"n": 42},
        {"n": -1500.0},
        {"n": 7},
        {},
    ]
    assert rejections(items) == [
        (5, "metadata['n'] is not a number: 'many'"),
        (6, "metadata['n'] is not a number: 'nan'"),
    ]


def test_columns_that_metadata_cannot_be_called_are_told(tmp_path: Path) -> None:
    """A saved index has no name, or begins with an underscore; the rows are taken without it."""
    given = opened(csv(tmp_path / "a.csv", ",id,text,_x\n0,1,words,y\n1,2,words,y\n"))
    assert documents(list(given.reader)) == [Document("1", "words"), Document("2", "words")]
    assert given.ignored_fields == {"": 2, "_x": 2}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the first line is empty"),
        (b"\n1,2\n", "the first line is empty"),
        (b"a,b\n1,2\n", "there is no column 'id' (there are: a, b); name it with --id-column"),
        (b"id,b\n1,2\n", "there is no column 'text'"),
        (b"id,text,text\n1,2,3\n", "the column 'text' is there twice"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "no header of CSV in UTF-8"),
        ("id,text\n1,a\n".encode("utf-16"), "no header of CSV in UTF-8"),
        (b'"id,text\n1,a\n', "no header of CSV: unexpected end of data"),
        (b"PK\x03\x04junk\0", "no header of CSV in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_rejected_whole(content: bytes, problem: str, tmp_path: Path) -> None:
    """Once, with what to do, and nothing of it is indexed."""
    (rejection,) = rejections(read(csv(tmp_path / "a.csv", content)))
    assert rejection[0] == 0
    assert problem in rejection[1]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"2,b", "the row has 2 fields, the header 3"),
        (b"2,b,c,d", "the row has 4 fields, the header 3"),
        (b"2,caf\xe9,c", "bytes that are not UTF-8"),
        (b"2,a\0b,c", "text holds NUL"),
        (b"2,,c", "text is empty"),
        (b",b,c", "id is empty"),
        (b'2,"b"x,c', "not CSV: ',' expected after '\"'"),
        (b'2,"' + b"x" * 70_000 + b'",c', "metadata takes"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(row: bytes, problem: str, tmp_path: Path) -> None:
    """The rows around it are read."""
    header = b"id,other,text\n" if b"xxx" in row else b"id,text,other\n"
    path = csv(tmp_path / "a.csv", header + b"1,fine,fine\n" + row + b"\n3,fine,fine\n")
    items = read(path)
    assert [item.document.id for item in items if isinstance(item, Entry)] == ["1", "3"]
    ((line, told),) = rejections(items)
    assert line == 3
    assert problem in told


def test_a_quote_left_open_is_told_where_it_began(tmp_path: Path) -> None:
    """What it swallowed is not taken for text."""
    items = read(csv(tmp_path / "a.csv", 'id,text\n1,fine\n2,"open\n3,swallowed\n'))
    assert rejections(items) == [(3, "not CSV: unexpected end of data")]


def test_a_line_without_end_is_not_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing behind it is read, and that is said."""
    monkeypatch.setattr("nearshore_indexer.delimited.MAX_LINE_BYTES", 1 << 20)
    items = read(csv(tmp_path / "a.csv", "id,text\n1,fine\n2," + "x" * (2 << 20) + "\n3,lost\n"))
    assert [item.document.id for item in items if isinstance(item, Entry)] == ["1"]
    assert rejections(items) == [(3, "the line is longer than 1 MiB; nothing behind it was read")]


def parquet(path: Path, columns: dict[str, Any], rows_each: int = 1 << 20) -> Path:
    """The path of a Parquet file with these columns, in row groups of so many rows."""
    pq.write_table(pa.table(columns), path, row_group_size=rows_each)
    return path


def test_parquet_keeps_types(tmp_path: Path) -> None:
    """Numbers, truth values, timestamps, dates and lists arrive as such; null and NaN are absence."""
    moment = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    columns = {
        "id": pa.array([7, 8], pa.int32()),
        "text": pa.array(["words", "more"]).dictionary_encode(),
        "n": pa.array([1, None], pa.uint8()),
        "x": pa.array([1.5, float("nan")], pa.float32()),
        "whole": pa.array([2.0, None], pa.float64()),
        "price": pa.array(["1.25", None]).cast(pa.decimal128(5, 2)),
        "yes": pa.array([True, None]),
        "at": pa.array([moment, None], pa.timestamp("ns", tz="Europe/Berlin")),
        "local": pa.array([moment.replace(tzinfo=None), None], pa.timestamp("ms")),
        "day": pa.array([dt.date(2024, 2, 29), None], pa.date32()),
        "tags": pa.array([["a", "b"], None], pa.large_list(pa.string())),
        "days": pa.array([[dt.date(2024, 2, 29)], None], pa.list_(pa.date32())),
        "none": pa.nulls(2),
    }
    first, second = documents(read(parquet(tmp_path / "a.parquet", columns)))
    assert first.id == "7"
    assert first.metadata == {
        "n": 1,
        "x": 1.5,
        "whole": 2.0,
        "price": 1.25,
        "yes": True,
        "at": moment,
        "local": moment,
        "day": dt.datetime(2024, 2, 29, tzinfo=dt.UTC),
        "tags": ("a", "b"),
        "days": (dt.datetime(2024, 2, 29, tzinfo=dt.UTC),),
    }
    assert type(first.metadata["whole"]) is float
    assert second == Document("8", "more")


def test_a_struct_called_metadata_is_taken_apart(tmp_path: Path) -> None:
    """As in JSON lines; columns of other types that metadata lacks are left out, and told."""
    columns = {
        "id": ["a"],
        "text": ["words"],
        "metadata": [{"lang": "en", "n": 3, "raw": b"x"}],
        "vector": pa.array([[[1.0]]], pa.list_(pa.list_(pa.float32()))),
        "raw": [b"bytes"],
    }
    given = opened(parquet(tmp_path / "a.pq", columns))
    assert documents(list(given.reader)) == [Document("a", "words", metadata={"lang": "en", "n": 3})]
    assert given.ignored_fields == {"vector": 1, "raw": 1}


def test_rows_are_read_group_after_group(tmp_path: Path) -> None:
    """A place is the row's number, whatever the groups; a bad row is refused alone."""
    texts = [f"words {n}" if n != 1_234 else "" for n in range(2_500)]
    items = read(parquet(tmp_path / "a.parquet", {"id": list(range(2_500)), "text": texts}, rows_each=700))
    assert [item.place.line for item in items] == list(range(1, 2_501))
    assert rejections(items) == [(1_235, "text is empty")]


def test_parquet_strings_are_checked(tmp_path: Path) -> None:
    """Not UTF-8, or with NUL: refused by row."""
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"fine", b"caf\xe9", b"a\0b"]).buffers())
    items = read(parquet(tmp_path / "a.parquet", {"id": ["1", "2", "3"], "text": bad}))
    assert rejections(items) == [
        (2, "it holds bytes that are not UTF-8, or half of a surrogate pair"),
        (3, "text holds NUL. Remove U+0000: it is not text"),
    ]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"id": ["1"], "text": [1.5]}, "the column 'text' is of type double, not string"),
        ({"id": [1.5], "text": ["a"]}, "the column 'id' is of type double, not string"),
        ({"id": ["1"], "body": ["a"]}, "there is no column 'text' (there are: id, body); name it with --text-column"),
    ],
)
def test_a_parquet_of_other_columns_is_rejected_whole(columns: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """Once, not once a row."""
    assert rejections(read(parquet(tmp_path / "a.parquet", columns))) == [(0, problem)]


def test_damaged_parquet_is_rejected(tmp_path: Path) -> None:
    """Junk, and a file that was cut: no crash, a reason."""
    path = parquet(tmp_path / "a.parquet", {"id": ["1"], "text": ["words"]})
    for content in (b"", b"PAR1", b"plainly not\0", path.read_bytes()[:-20], b"\xff" * 1_000):
        ((line, problem),) = rejections(read(csv(path, content)))
        assert line == 0
        assert "it cannot be read" in problem


def test_parquet_is_neither_zipped_nor_piped(tmp_path: Path) -> None:
    """Its end is read first; it is refused before anything is read."""
    path = csv(tmp_path / "a.parquet.gz", b"")
    with pytest.raises(SourceError, match="Parquet inside gzip"):
        check_sources([str(path)], Format.PARQUET)
    pipe = tmp_path / "pipe.parquet"
    os.mkfifo(pipe)
    reading, writing = os.pipe()
    for file, file_format in ((str(pipe), Format.AUTO), (f"/dev/fd/{reading}", Format.PARQUET), ("-", Format.PARQUET)):
        with pytest.raises(SourceError, match=r"takes a regular file.*Write it to a file and name that; or send JSONL"):
            check_sources([file], file_format)
    os.close(reading)
    os.close(writing)
