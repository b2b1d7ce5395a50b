"""`nearshore index` into a data folder that no server has open, where something keeps it from getting on."""

import errno
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nearshore.cli import main
from nearshore.cli.engine import Engine
from nearshore.errors import StorageFullError
from nearshore.exit_codes import ExitCode
from nearshore.records import Item, WriteToken
from nearshore.replica import Replica
from nearshore.replica.mirror import Mirror
from nearshore.store.base import WriteResult
from nearshore.store.errors import StoreCorruptError
from nearshore.store.sqlite import SqliteStore
from nearshore_indexer.pipeline import Pipeline, Window

WAIT_S = 20.0  # only a bug reaches it
FULL = StorageFullError("appending rows")
AGAIN = "Mend that, and run the command again."
Index = Callable[[], tuple[int, dict[str, Any]]]


@pytest.fixture
def index(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Index:
    """Indexes three documents into the collection "fish", without patience; returns exit code, error, warnings."""
    monkeypatch.setenv("NEARSHORE_EMBEDDING__MODEL", "tiny")
    monkeypatch.setattr("nearshore.cli.index_ways._HELD_UP_PATIENCE_S", 0.0)
    file = tmp_path / "fish.jsonl"
    file.write_text("".join(json.dumps({"id": str(n), "text": f"red fish {n}"}) + "\n" for n in range(3)))
    options = ["--json", "--data-dir", str(tmp_path / "data"), "--model-dir", str(model_dir)]

    def run() -> tuple[int, dict[str, Any]]:
        code = main.run([*options, "index", str(file), "-c", "fish"])
        lines = capsys.readouterr().err.splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        errors = [each["error"] for each in told if isinstance(each.get("error"), dict)]
        warnings = [line for line in lines if line.startswith("warning:")]
        return code, {**(errors[-1] if errors else {}), "warnings": warnings}

    return run


def failing(error: Exception) -> Callable[..., NoReturn]:
    """A method that always raises this."""

    def fail(*_: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("error", [FULL, OSError(errno.EMFILE, "Too many open files")])
def test_a_load_that_fails_again_and_again_ends_the_run(
    index: Index, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It says of which collection, by what, and what to do; the sentences stand apart."""
    assert index()[0] == ExitCode.OK
    with monkeypatch.context() as patched:
        patched.setattr(Mirror, "apply", failing(error))
        code, told = index()
    assert (code, told["reason"], told["remedy"]) == (ExitCode.UNAVAILABLE, "INDEXING_HELD_UP", AGAIN)
    assert told["message"] == f"Collection 'fish' is not loaded yet: {str(error).rstrip('.')}."
    assert index()[0] == ExitCode.OK


def test_a_disk_that_fills_up_says_what_is_written(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acknowledged before stays, no sentence denies it, and the next run goes on from there."""
    monkeypatch.setattr("nearshore.cli.indexing.BATCH_DOCUMENTS", 1)
    monkeypatch.setattr("nearshore.cli.indexing.Pipeline", partial(Pipeline, window=Window(batches=1)))
    write, calls = SqliteStore.write, count()

    def write_twice(store: SqliteStore, *arguments: Any) -> Future[WriteResult]:
        if next(calls) == 2:
            raise FULL
        return write(store, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteStore, "write", write_twice)
        code, told = index()
    assert (code, told["reason"]) == (ExitCode.UNAVAILABLE, "STORAGE_FULL")
    assert told["remedy"] == "What did not fit is not written. Free space or grow the volume, then retry."
    assert [line.split(".")[0] for line in told["warnings"]] == ["warning: cut short: 2 documents are written and stay"]
    assert index() == (ExitCode.OK, {"warnings": []})


def test_writes_that_cannot_become_searchable_end_the_run(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written stays, nobody is left waiting for it, and the next run finds it."""
    asked, applied = list[Future[None]](), Replica.applied

    def ask(replica: Replica, token: WriteToken) -> Future[None]:
        asked.append(applied(replica, token))
        return asked[-1]

    with monkeypatch.context() as patched:
        patched.setattr(Mirror, "apply", failing(FULL))
        patched.setattr(Replica, "applied", ask)
        code, told = index()
    assert (code, told["reason"], told["remedy"]) == (ExitCode.UNAVAILABLE, "INDEXING_HELD_UP", AGAIN)
    assert told["message"] == f"Collection 'fish' is written, and not searchable yet: {FULL.message}"
    assert [each.cancelled() for each in asked] == [True]
    assert index()[0] == ExitCode.OK


def test_a_store_that_cannot_tell_what_it_holds_ends_the_run(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is damaged so that no collection is known to be held up."""
    damaged = StoreCorruptError("The store is damaged.", "Restore it.")
    monkeypatch.setattr(SqliteStore, "heads", failing(damaged))
    code, told = index()
    assert (code, told["reason"], told["remedy"]) == (ExitCode.UNAVAILABLE, "INDEXING_HELD_UP", AGAIN)
    assert told["message"].endswith(f" not loaded yet: {damaged}")


def test_an_attempt_after_a_failure_is_waited_for(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes: what failed once may be mended by now."""
    assert index()[0] == ExitCode.OK
    attempts, at_work, looks = count(), threading.Event(), threading.Semaphore(0)
    apply, check = Mirror.apply, Engine.check

    def apply_at_length(mirror: Mirror, items: Sequence[Item]) -> None:
        match next(attempts):
            case 0:
                raise FULL
            case 1:
                at_work.set()
                assert all(looks.acquire(timeout=WAIT_S) for _ in range(3))
        apply(mirror, items)

    def look(engine: Engine) -> None:
        if at_work.is_set():
            looks.release()
        check(engine)

    monkeypatch.setattr(Mirror, "apply", apply_at_length)
    monkeypatch.setattr(Engine, "check", look)
    assert index()[0] == ExitCode.OK
