"""`nearshore index` straight into PostgreSQL, as processes: shared work, a kill, unchanged input, a store away."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nearshore.assembly import open_store
from nearshore.client import Client
from nearshore.exit_codes import ExitCode
from nearshore.records import CollectionSpec, Item
from nearshore.settings import load_settings
from nearshore.store.base import Cursor
from tests.postgres import PostgresServer
from tests.servers import ServerProcess

WAIT_S = 60
Start = Callable[..., "subprocess.Popen[str]"]
Ended = tuple[int, dict[str, Any], str]


@pytest.fixture
def start(tmp_path: Path, model_dir: Path) -> Start:
    """Starts `nearshore --json index ...` into the store of a URL, in tmp_path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEARSHORE_")}

    def start_command(url: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        settings = {
            "NEARSHORE_STORE__URL": url,
            "NEARSHORE_DATA_DIR": str(tmp_path / "none"),
            "NEARSHORE_MODEL_DIR": str(model_dir),
            "NEARSHORE_EMBEDDING__MODEL": "tiny",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "nearshore", "--json", "index", "-c", "notes", *arguments],
            env={**kept, **settings, **environment},
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start_command


def finish(process: "subprocess.Popen[str]", given: str = "") -> Ended:
    """Exit code, the figures printed, standard error."""
    out, err = process.communicate(given, timeout=WAIT_S)
    return process.returncode, json.loads(out or "{}"), err


def stored(url: str) -> dict[str, tuple[Item, bytes]]:
    """Every live item and its vector's bytes, by id; positions differ between runs and are left out."""
    store = open_store(load_settings(store__url=url), lambda _: None)
    try:
        collection = store.get_collection("notes")
        found: dict[str, tuple[Item, bytes]] = {}
        resume = None
        while True:
            page = store.read_feed(collection.id, Cursor(), resume)
            for item in page.items:
                if item.document is not None and item.vector is not None:
                    bare = Item(item.id, 0, item.document, None, item.content_hash)
                    found[item.id] = (bare, item.vector.tobytes())
            resume = page.next
            if resume is None:
                return found
    finally:
        store.close()


def corpus(folder: Path) -> list[str]:
    """Files of several formats; one line is no document."""
    words = ("red", "green", "blue", "fish", "bird", "tree", "river", "city")
    rows = [
        {"id": f"j{n}", "text": " ".join(words[(n >> bit) % 8] for bit in range(n % 40 + 1)), "metadata": {"n": n}}
        for n in range(3_000)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    (folder / "b.csv").write_text("id,text,lang\n" + "".join(f"c{n},the red fish {n},en\n" for n in range(500)))
    for n in range(5):
        (folder / f"{n}.md").write_text(f"# Birds\n\n## Number {n}\n\n" + "The green bird is in the tree. " * 40)
    return sorted(path.name for path in folder.iterdir())


def struck_after_a_commit(start: Start, url: str, folder: Path, number: signal.Signals, *arguments: str) -> Ended:
    """Run an index of the first part of a.jsonl, whose rest never comes; once something is committed, strike it."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    with (
        psycopg.connect(url, autocommit=True) as told,
        psycopg.connect(url, autocommit=True) as asked,
        pipe.open("r+b", buffering=0) as rest_to_come,
    ):
        told.execute("LISTEN nearshore_commits")
        process = start(url, str(pipe), "--format", "jsonl", *arguments)
        rest_to_come.write(b"".join((folder / "a.jsonl").read_bytes().splitlines(keepends=True)[:2_500]))
        for _ in told.notifies(timeout=WAIT_S):
            if asked.execute("SELECT 1 FROM items LIMIT 1").fetchone():
                break
        process.send_signal(number)
        ended = finish(process)
    pipe.unlink()
    return ended


def test_killed_shards_write_what_one_process_would(
    start: Start, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Bit for bit, in a collection created by whoever comes first; run again, nothing is embedded or written."""
    files = corpus(tmp_path)
    once, shared = postgres_server.create_database(), postgres_server.create_database()
    code, whole, err = finish(start(once, *files))
    assert (code, whole["rejected"]) == (ExitCode.REJECTED, 1), err
    expected = stored(once)
    assert whole["documents"] == whole["written"] == whole["embedded"] == len(expected) > 3_500

    assert struck_after_a_commit(start, shared, tmp_path, signal.SIGKILL, "--shard", "1/2")[0] == -signal.SIGKILL
    first = start(shared, *files, "--shard", "0/2")
    second = start(shared, *files, "--shard", "auto/2", JOB_COMPLETION_INDEX="1")
    ended = [finish(first), finish(second)]
    assert sorted(code for code, _, _ in ended) == [ExitCode.OK, ExitCode.REJECTED]
    assert sum(figures["documents"] for _, figures, _ in ended) == len(expected)
    assert 0 < sum(figures["embedded"] for _, figures, _ in ended) < len(expected)
    assert stored(shared) == expected

    code, again, err = finish(start(shared, *files))
    assert code == ExitCode.REJECTED, err
    assert (again["documents"], again["written"], again["embedded"]) == (len(expected), 0, 0)


def test_only_what_changed_is_written(start: Start, postgres_url: str, tmp_path: Path) -> None:
    """Metadata without embedding, a new row with; passages that a shorter file no longer has are removed."""
    files = corpus(tmp_path)
    _, before, _ = finish(start(postgres_url, *files))
    lines = (tmp_path / "a.jsonl").read_text().splitlines()[:-1]
    lines[7] = lines[7].replace('"n": 7', '"n": 7.5')
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, json.dumps({"id": "new", "text": "a bird"})]))
    (tmp_path / "0.md").write_text("# Birds\n\n## Number 0\n\nThe green bird.\n")
    code, after, err = finish(start(postgres_url, *files))
    assert code == ExitCode.OK, err
    assert (after["written"], after["embedded"]) == (3, 2)
    assert after["removed"] > 0
    found = stored(postgres_url)
    assert len(found) == before["documents"] + 1 - after["removed"]
    assert found["j7"][0].document is not None
    assert found["j7"][0].document.metadata == {"n": 7.5}


def test_a_server_finds_what_was_written_beside_it(
    start: Start, postgres_url: str, server_process: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """It follows the store; the same command with --server goes through it, and embeds nothing again."""
    server = server_process(NEARSHORE_STORE__URL=postgres_url)
    address = server.address()
    rows = [{"id": str(n), "text": f"the red fish number {n}"} for n in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, figures, err = finish(start(postgres_url, "a.jsonl"))
    assert (code, figures["written"], figures["server"]) == (ExitCode.OK, 30, ""), err
    with Client(address) as client:
        give_up_at = time.monotonic() + WAIT_S
        while client.count("notes") < 30:
            assert time.monotonic() < give_up_at
        assert client.search("notes", "the red fish number 17").hits[0].document.id == "17"
        code, figures, err = finish(start(postgres_url, "a.jsonl", "--server", address))
    assert (code, figures["documents"], figures["embedded"]) == (ExitCode.OK, 30, 0), err
    assert figures["server"]


def test_sigterm_ends_a_run_as_ctrl_c_does(start: Start, postgres_url: str, tmp_path: Path) -> None:
    """Kubernetes sends it; what is written stays, and the last line says how to go on."""
    corpus(tmp_path)
    code, _, err = struck_after_a_commit(start, postgres_url, tmp_path, signal.SIGTERM)
    assert code == ExitCode.INTERRUPTED
    assert "Run the same command again" in err
    assert "Traceback" not in err
    assert len(stored(postgres_url)) > 0


def test_a_store_that_is_away_is_told_without_its_password(start: Start) -> None:
    """An exit code that says try again later, and for a URL that nobody can use one that says mend it."""
    code, _, err = finish(start("postgresql://somebody:hushhush@127.0.0.1:1/none", "-"))
    assert code == ExitCode.UNAVAILABLE
    assert "hushhush" not in err
    code, _, err = finish(start("mysql://somebody:hushhush@127.0.0.1/none", "-"))
    assert code == ExitCode.USAGE
    assert "hushhush" not in err


def test_a_collection_of_another_model_is_refused(start: Start, postgres_url: str) -> None:
    """Before anything is read: its vectors mean something else."""
    store = open_store(load_settings(store__url=postgres_url), lambda _: None)
    store.create_collection(CollectionSpec("notes", 32, model="other", fingerprint="nsf1-other"))
    store.create_collection(CollectionSpec("bare", 32))
    store.close()
    for collection, reason in (("notes", "FINGERPRINT_MISMATCH"), ("bare", "NO_MODEL")):
        for sizes in ((), ("--passage-tokens", "63")):  # more than the model takes, which comes second
            code, _, err = finish(start(postgres_url, "-", "-c", collection, *sizes), '{"id": "1", "text": "red"}')
            assert code == ExitCode.FAILED
            assert reason in err
