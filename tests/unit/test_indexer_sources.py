"""Reading files of documents."""

import gzip
import hashlib
import io
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nearshore.documents.limits import Limits
from nearshore.records import Document
from nearshore_indexer.batches import batches
from nearshore_indexer.building import Builder
from nearshore_indexer.columns import Columns
from nearshore_indexer.entries import Entry, Rejection, SourceError, SourceNotFoundError
from nearshore_indexer.formats import Input, Reading
from nearshore_indexer.jsonl import JsonLines
from nearshore_indexer.sources import Format, Reader, check_sources
from nearshore_indexer.text_files import Splitting, TextFiles, plain_pieces

Items = list[Entry | Rejection]


def count(texts: object) -> list[int]:
    """Words."""
    assert isinstance(texts, list)
    return [len(text.split()) for text in texts]


def read(*files: Path | str, file_format: Format = Format.AUTO, timestamps: tuple[str, ...] = ()) -> Items:
    """Everything that reading the files yields."""
    return list(make_reader(*files, file_format=file_format, timestamps=timestamps))


def make_reader(*files: Path | str, file_format: Format = Format.AUTO, timestamps: tuple[str, ...] = ()) -> Reader:
    """A reader with passages of at most six words."""
    reading = Reading(Limits(), Splitting(6, 0, count), timestamp_keys=timestamps)
    return Input(check_sources([str(file) for file in files], file_format), reading).reader


def written(path: Path, content: str | bytes) -> Path:
    """The path, with this in it."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(path: Path, *records: object) -> Path:
    """A file of JSON lines."""
    return written(path, "".join(json.dumps(record) + "\n" for record in records))


def documents(items: Items) -> list[Document]:
    """The documents; fails if anything was rejected."""
    assert not [item for item in items if isinstance(item, Rejection)]
    return [item.document for item in items if isinstance(item, Entry)]


def rejections(items: Items) -> dict[str, str]:
    """Problems by place."""
    return {str(item.place): item.problem for item in items if isinstance(item, Rejection)}


def test_a_line_is_a_document(tmp_path: Path) -> None:
    """Every field arrives; lists become tuples, null is absence, integers stay integers."""
    record = {
        "id": "a",
        "title": "T",
        "text": "words",
        "parent_id": "p",
        "metadata": {"n": 1, "x": 1.5, "b": True, "s": "t", "l": ["u", "v"], "none": None},
    }
    (document,) = documents(read(lines(tmp_path / "a.jsonl", record)))
    assert document == Document("a", "words", "T", "p", {"n": 1, "x": 1.5, "b": True, "s": "t", "l": ("u", "v")})


def test_the_ids_of_beir_are_taken(tmp_path: Path) -> None:
    """_id is an id, and a number is its digits."""
    read_ids = documents(read(lines(tmp_path / "a.jsonl", {"_id": "x", "text": "a"}, {"id": 7, "text": "b"})))
    assert [document.id for document in read_ids] == ["x", "7"]


def test_a_title_alone_is_a_passage(tmp_path: Path) -> None:
    """What the model sees is the same, and an empty text would be refused."""
    (document,) = documents(read(lines(tmp_path / "a.jsonl", {"id": "a", "text": "", "title": "T"})))
    assert (document.title, document.text, document.embedded_text) == ("", "T", "T")


def test_timestamps_are_read_where_asked(tmp_path: Path) -> None:
    """Only the named keys change type, in lists too."""
    record = {"id": "a", "text": "b", "metadata": {"at": ["2024-01-02T03:04:05+01:00"], "kept": "2024-01-02T03:04:05Z"}}
    (document,) = documents(read(lines(tmp_path / "a.jsonl", record), timestamps=("at",)))
    moment = datetime(2024, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert document.metadata == {"at": (moment,), "kept": "2024-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON"),
        (b"[]", "the line is a list, not an object"),
        (b'"x"', "the line is a string, not an object"),
        (b'{"text": "a"}', "there is no field 'id' (there are: text); name it with --id-column"),
        (b'{"id": "a"}', "there is no field 'text' (there are: id); name it with --text-column"),
        (b'{"id": "", "text": "a"}', "id is empty"),
        (b'{"id": "a", "text": "  "}', "text is empty"),
        (b'{"id": "a", "text": 5}', "text is a number, not a string"),
        (b'{"id": true, "text": "a"}', "id is true or false, not a string"),
        (b'{"id": "a", "text": "\\u0000"}', "text holds NUL"),
        (b'{"id": "a", "text": "\\ud800"}', "half of a surrogate pair"),
        (b'{"id": "a", "text": "\xff"}', "byte 22 of the line is not UTF-8"),
        (b'{"id": "a", "text": "b", "metadata": []}', "metadata is a list, not an object"),
        (b'{"id": "a", "text": "b", "metadata": {"k": {}}}', "metadata['k'] is an object"),
        (b'{"id": "a", "text": "b", "metadata": {"k": [1, "x"]}}', "a list of several types"),
        (b'{"id": "a", "text": "b", "metadata": {"k": NaN}}', "finite"),
        (b'{"id": "a", "text": "b", "metadata": {"k": 9223372036854775808}}', "int64"),
        (b'{"id": "a", "text": "b", "metadata": {"at": "today"}}', "not an RFC 3339 timestamp"),
        (b'{"id": "a", "text": "b", "metadata": {"at": "2024-01-02T00:00:00"}}', "no time zone"),
        (b'{"id": "' + b"i" * 513 + b'", "text": "b"}', "513 bytes. It may have at most 512 bytes"),
        (b'{"id": "a", "text": "' + b"t" * 1_048_577 + b'"}', "At most 1,048,576 (limits.max_text_bytes) are allowed"),
        (b'{"id": "a", "text": "b", "metadata": {"k": "' + b"v" * 65_536 + b'"}}', "At most 65,536 (limits.max_meta"),
        (
            b'{"id": "a", "text": "b", "metadata": {' + b",".join(b'"%d": 1' % n for n in range(65)) + b"}}",
            "At most 64 (limits.max_metadata_keys) are allowed",
        ),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(line: bytes, problem: str, tmp_path: Path) -> None:
    """The lines around it are read."""
    good = b'{"id": "%d", "text": "fine"}\n'
    path = written(tmp_path / "a.jsonl", good % 1 + line + b"\n" + good % 3)
    items = read(path, timestamps=("at",))
    assert [item.place.line for item in items] == [1, 2, 3]
    assert list(rejections(items)) == [f"{path}:2"]
    assert problem in rejections(items)[f"{path}:2"]


def test_a_line_without_end_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is read past in pieces, and never held whole."""
    monkeypatch.setattr("nearshore_indexer.jsonl.MAX_LINE_BYTES", 64)
    path = lines(tmp_path / "a.jsonl", {"id": "1", "text": "x" * 1_000}, {"id": "2", "text": "fine"})
    items = read(path)
    assert list(rejections(items)) == [f"{path}:1"]
    assert [item.document.id for item in items if isinstance(item, Entry)] == ["2"]


def test_fields_are_found_where_they_are_said_to_be(tmp_path: Path) -> None:
    """As columns are; what else could have been meant is ignored and counted, and a field that is not there named."""
    columns = Columns("key", "body", "heading", "source")
    record = {"key": "k", "body": "words", "heading": "H", "source": "s", "text": "other", "metadata": {"n": 1}}
    path = lines(tmp_path / "a.jsonl", record, {"key": "b", "text": "c"})
    given = Input(check_sources([str(path)], Format.AUTO), Reading(Limits(), Splitting(6, 0, count), columns))
    found = list(given.reader)
    assert documents(found[:1]) == [Document("k", "words", "H", "s", {"n": 1})]
    assert given.ignored_fields == {"text": 2}
    problem = "there is no field 'body' (there are: key, text); name it with --text-column"
    assert rejections(found) == {f"{path}:2": problem}


def test_fields_that_documents_lack_are_counted(tmp_path: Path) -> None:
    """Somebody may have meant them to be metadata."""
    builder = Builder(Limits())
    list(JsonLines(builder).read(io.BytesIO(b'{"id": "a", "text": "b", "url": "c"}\n'), "x"))
    assert builder.ignored_fields == {"url": 1}


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    """The format goes by the suffix before .gz."""
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(b'{"id": "a", "text": "b"}\n'))
    assert [document.id for document in documents(read(path))] == ["a"]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda packed: packed[: len(packed) // 2], "the gzip data ends early"),
        (lambda packed: b"plainly no gzip", "the gzip data is damaged"),
        (lambda packed: packed[:-8] + b"\0" * 8, "the gzip data is damaged"),
    ],
)
def test_damaged_gzip_is_reported_and_the_next_file_read(
    damage: Callable[[bytes], bytes], problem: str, tmp_path: Path
) -> None:
    """What could be unpacked was taken, and the report says up to where."""
    noise = "".join(json.dumps({"id": str(number), "text": f"{number * 7919}"}) + "\n" for number in range(2_000))
    bad = written(tmp_path / "a.jsonl.gz", damage(gzip.compress(noise.encode())))
    good = lines(tmp_path / "b.jsonl", {"id": "last", "text": "fine"})
    items = read(bad, good)
    assert problem in rejections(items)[str(bad)]
    assert isinstance(items[-1], Entry)
    assert items[-1].document.id == "last"


def test_text_becomes_passages_with_stable_ids(tmp_path: Path) -> None:
    """path#1, path#2, ... of parent path, each with its line, however lines end."""
    for text in (
        "Birds.\n\nThey fly up high.\n\nThey sing at night.\n",
        "Birds.\r\n\rThey fly up high.\r\rThey sing at night.",
    ):
        path = written(tmp_path / "a.txt", text)
        items = read(path)
        assert [(document.id, document.text) for document in documents(items)] == [
            (f"{path}#1", "Birds.\n\nThey fly up high."),
            (f"{path}#2", "They sing at night."),
        ]
        assert {(document.title, document.parent_id) for document in documents(items)} == {("", str(path))}
        assert [item.place.line for item in items] == [1, 5]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file holds no documents"),
        (b" \n ", "the file holds no documents"),
        (b"abc\xff", "byte 4 is not UTF-8"),
        (b"ab\0c", "byte 3 is NUL"),
    ],
)
def test_a_file_that_is_no_text_is_rejected_whole(content: bytes, problem: str, tmp_path: Path) -> None:
    """No part of it is indexed."""
    path = written(tmp_path / "a.txt", content)
    assert problem in rejections(read(path))[str(path)]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.gz"])
def test_a_text_counts_as_read_as_far_as_its_passages_were_given(name: str, tmp_path: Path) -> None:
    """It is read whole before the first: progress by what the disk gave would stand at its end from the beginning."""
    content = b"Birds sing at night.\n\n" * 99
    path = written(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    rejected: list[Rejection] = []
    made = list(batches(make_reader(path), size=10, max_bytes=1 << 20, reject=rejected.append))
    shares = [batch.source_bytes / path.stat().st_size for batch in made]
    assert (len(made), rejected) == (10, [])
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.15


def test_a_shorter_version_is_known_by_its_count(tmp_path: Path) -> None:
    """The number of passages of each file that was read whole, for removing what it no longer has."""
    counts: dict[str, int] = {}
    text = TextFiles(plain_pieces, Splitting(6, 0, count), Limits(), counts)
    list(text.read(io.BytesIO(b"one two three four. five six seven."), "x.txt"))
    list(text.read(io.BytesIO(b"\xff"), "y.txt"))
    assert counts == {"x.txt": 2}


def test_standard_input_is_known_by_its_first_character(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An opening brace is JSON, anything else text."""
    for content, expected in ((b' {"id": "a", "text": "b"}\n', "a"), (b"plain words", "stdin-fcfb09747001#1")):
        path = written(tmp_path / "in", content)
        with path.open() as stdin, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", stdin)
            assert [document.id for document in documents(read("-"))] == [expected]


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/63", "/proc/self/fd/12"])
def test_piped_texts_are_named_by_their_content(name: str) -> None:
    """The same text gets the same ids again, and another stays beside it: a pipe's own name says nothing."""
    counts: dict[str, int] = {}
    text = TextFiles(plain_pieces, Splitting(6, 0, count), Limits(), counts)
    found = [
        [item.document.id for item in text.read(io.BytesIO(content), name) if isinstance(item, Entry)]
        for content in (b"about cats", b"about dogs", b"about cats")
    ]
    parents = [f"stdin-{hashlib.sha256(content).hexdigest()[:12]}" for content in (b"about cats", b"about dogs")]
    assert found == [[f"{parents[0]}#1"], [f"{parents[1]}#1"], [f"{parents[0]}#1"]]
    assert counts == dict.fromkeys(parents, 1)


def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    """As shells make them: <(zcat *.gz); how much will come is not known."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pipe.open("r+b", buffering=0) as given:
        given.write(b'{"id": "a", "text": "b"}\n')
        reader = make_reader(pipe, file_format=Format.JSONL)
        assert next(iter(reader)).place.line == 1
        assert (reader.total_bytes, reader.read_bytes) == (None, 0)


def test_a_named_pipe_is_waited_for_with_a_word(tmp_path: Path) -> None:
    """Nobody may ever write into it, so it is told before anything is read; a pipe that a shell made has its writer."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    good = lines(tmp_path / "a.jsonl", {"id": "1", "text": "x"})
    reading, writing = os.pipe()
    told: list[str] = []
    check_sources([str(good), f"/dev/fd/{reading}", "-"], Format.JSONL, told.append)
    assert told == []
    check_sources([str(good), str(tmp_path / "pipe.jsonl")], Format.JSONL, told.append)
    assert [str(tmp_path / "pipe.jsonl") in each for each in told] == [True]
    os.close(reading)
    os.close(writing)


def test_files_are_looked_at_before_any_is_read(tmp_path: Path) -> None:
    """A missing file, a folder without any and an unknown kind of file end the run before it begins."""
    good = lines(tmp_path / "a.jsonl", {"id": "1", "text": "x"})
    with pytest.raises(SourceNotFoundError):
        check_sources([str(good), str(tmp_path / "none.jsonl")], Format.AUTO)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="No file below"):
        check_sources([str(tmp_path / "empty")], Format.AUTO)
    with pytest.raises(SourceError, match="does not say what is in it"):
        check_sources([str(written(tmp_path / "a.pdf", "x"))], Format.AUTO)
    assert check_sources([str(tmp_path / "a.pdf")], Format.TEXT)[0].format is Format.TEXT


def test_a_folder_stands_for_the_files_below_it(tmp_path: Path) -> None:
    """In the order of their names, hidden ones and those of no known kind left out; a format given takes all."""
    for name in ("b.md", "a/z.jsonl.gz", "a/y.txt", "picture.png", ".hidden.md", ".git/x.md", "a/.x/y.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link.csv").symlink_to(tmp_path / "b.md")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "none")

    def found(file_format: Format) -> list[str]:
        sources = check_sources([str(tmp_path)], file_format)
        return [str(Path(source.file).relative_to(tmp_path)) for source in sources]

    assert found(Format.AUTO) == ["a/y.txt", "a/z.jsonl.gz", "b.md", "link.csv"]
    assert found(Format.TEXT) == ["a/y.txt", "a/z.jsonl.gz", "b.md", "link.csv", "picture.png"]


def test_a_file_is_read_once_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its first name: under two its text would be stored twice, and its records be refused as repeated."""
    monkeypatch.chdir(tmp_path)
    for name in ("sub/a.txt", "sub/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link").symlink_to("sub")
    named = ["sub/a.txt", str(tmp_path / "sub" / "a.txt"), "./sub", "sub/../sub/b.jsonl", "link/a.txt", "-", "-"]
    sources = check_sources(named, Format.AUTO)
    assert [source.file for source in sources] == ["sub/a.txt", "sub/b.jsonl", "-"]


def test_a_folder_without_files_is_told_where_there_are_others(tmp_path: Path) -> None:
    """It does not keep them from being indexed."""
    (tmp_path / "empty").mkdir()
    good = lines(tmp_path / "a.jsonl", {"id": "1", "text": "x"})
    told: list[str] = []
    (source,) = check_sources([str(tmp_path / "empty"), str(good)], Format.AUTO, told.append)
    assert source.file == str(good)
    assert len(told) == 1
    assert told[0].startswith(f"No file below {tmp_path / 'empty'} says by its name what it is. Known are .jsonl ")


def test_batches_hold_every_document_once(tmp_path: Path) -> None:
    """An id that comes again is rejected with its place; the batches' bytes add up to the input's."""
    records = [{"id": str(number % 25), "text": "x"} for number in range(30)]
    path = lines(tmp_path / "a.jsonl", *records)
    rejected: list[Rejection] = []
    made = list(batches(make_reader(path), size=10, max_bytes=1 << 20, reject=rejected.append))
    assert [len(batch.documents) for batch in made] == [10, 10, 5]
    assert [rejection.place.line for rejection in rejected] == [26, 27, 28, 29, 30]
    assert sum(batch.source_bytes for batch in made) == path.stat().st_size
    assert [place.line for batch in made for place in batch.places] == list(range(1, 26))
