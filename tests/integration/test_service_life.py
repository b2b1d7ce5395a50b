"""How a server process begins, lives and ends: order, exit codes, and what ends it.

test_bad_surroundings.py shows what keeps one from starting.
"""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

from nearshore import app, chores, opening, serving
from nearshore.client import NO_RETRIES, Client, Document
from nearshore.documents.models import Models
from nearshore.errors import NearshoreError, UnavailableError
from nearshore.exit_codes import ExitCode
from nearshore.replica import Replicas
from nearshore.served_models import ServedModels
from nearshore.service.health import Health
from nearshore.store.lock import FolderLock, read_holder
from tests.servers import ROOT, START_S, InProcessServer, ServerProcess, make_settings

Start = Callable[..., ServerProcess]
Tellers = list[Callable[[BaseException], None]]


def last_entry(process: ServerProcess) -> dict[str, str]:
    """The last line of the log of a process that has ended."""
    entry: dict[str, str] = json.loads(process.lines[-1])
    return entry


def test_it_says_what_it_serves_and_ends_on_a_signal(server_process: Start, tmp_path: Path) -> None:
    """The first line names version, folder, model, fingerprint and durability; SIGTERM ends it with 0."""
    process = server_process()
    entry = process.wait_for("Serving")
    assert json.loads(process.lines[0]) == entry
    assert entry["data_dir"] == str(tmp_path / "data")
    assert (entry["model"], entry["host"], entry["workers"]) == ("tiny", "127.0.0.1", 2)
    assert entry["fingerprint"].startswith("nsf1-")
    assert "fsync" in entry["durability"]
    assert process.wait_for("Ready")["collections"] == 0
    holder = read_holder(tmp_path / "data")
    assert holder is not None
    assert holder.address == f"127.0.0.1:{entry['port']}"
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() == ExitCode.OK
    assert last_entry(process)["event"] == "Stopped"
    assert not any("Traceback" in line for line in process.lines)


def test_sigterm_among_writes_loses_no_acknowledged_one(server_process: Start) -> None:
    """Whatever was acknowledged before or during the stop is there after the restart."""
    process = server_process()
    acknowledged: set[str] = set()
    enough = threading.Event()

    def write(client: Client, writer: int) -> None:
        for n in range(10_000):
            document = Document(f"{writer}-{n}", f"cat {n}")
            try:
                client.upsert("docs", [document])
            except NearshoreError:
                return
            acknowledged.add(document.id)
            if len(acknowledged) >= 50:
                enough.set()

    with Client(process.address(), retries=NO_RETRIES) as client:
        client.wait_ready()
        client.create_collection("docs", model="tiny")
        writers = [threading.Thread(target=write, args=(client, number)) for number in range(4)]
        for writer in writers:
            writer.start()
        assert enough.wait(30)
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == ExitCode.OK
        for writer in writers:
            writer.join()
    restarted = server_process()
    with Client(restarted.address()) as client:
        client.wait_ready()
        ids = sorted(acknowledged)
        missing = [each for n in range(0, len(ids), 500) for each in client.get("docs", ids[n : n + 500]).missing_ids]
    assert missing == []


def test_a_full_disk_is_refused(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC from any part at the start is STORAGE_FULL, and nothing stays open."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    settings = make_settings(tmp_path / "data", model_dir)
    with monkeypatch.context() as patched:
        patched.setattr(serving, "open_store", full)
        with pytest.raises(NearshoreError) as refused:
            asyncio.run(app.Process(settings).serve())
    assert refused.value.reason == "STORAGE_FULL"
    FolderLock.acquire(tmp_path / "data").release()


def test_an_address_beyond_this_machine_comes_with_a_warning(server_process: Start) -> None:
    """There is no authentication yet, and the log says so."""
    process = server_process(NEARSHORE_SERVER__HOST="0.0.0.0")
    entry = process.wait_for(
        "Anyone who reaches this address can read, write and delete everything: there is no authentication yet"
    )
    assert entry["level"] == "warning"


@pytest.fixture
def tellers(monkeypatch: pytest.MonkeyPatch) -> Tellers:
    """What the replicas of each process that is started from now on would tell their death to."""
    told: Tellers = []
    opened = Replicas.open

    def remember(*arguments: Any) -> Replicas:
        told.append(arguments[-1])
        return opened(*arguments)

    monkeypatch.setattr(Replicas, "open", remember)
    return told


def test_a_dead_follower_ends_the_process(tmp_path: Path, model_dir: Path, tellers: Tellers) -> None:
    """A view that stands still would be served for ever: better a restart."""
    settings = make_settings(tmp_path / "data", model_dir)
    process = app.Process(settings, on_serving=lambda _: tellers[0](RuntimeError("the follower died")))
    assert asyncio.run(process.serve()) is ExitCode.CRASHED


def test_the_first_signal_after_a_death_is_no_second_one(
    tmp_path: Path, model_dir: Path, tellers: Tellers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is stopping by itself: it goes on in order, and its exit code tells of the death."""
    at_once: list[int] = []

    def die_and_be_signalled(_: str) -> None:
        tellers[0](RuntimeError("the follower died"))
        asyncio.get_running_loop().call_soon(process.end, "SIGTERM")  # behind the death

    monkeypatch.setattr("os._exit", at_once.append)
    process = app.Process(make_settings(tmp_path / "data", model_dir), on_serving=die_and_be_signalled)
    assert asyncio.run(process.serve()) is ExitCode.CRASHED
    assert at_once == []


def test_a_signal_while_it_starts_does_not_wait_for_an_import_that_hangs(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a step like others, though it goes on beside another."""
    codes: list[int] = []
    go_on = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        go_on.set()

    async def live() -> ExitCode:
        loop = asyncio.get_running_loop()
        process = app.Process(make_settings(tmp_path / "data", model_dir))

        def end_and_hang() -> None:
            loop.call_soon_threadsafe(process.end, "a signal")
            assert go_on.wait(START_S)

        monkeypatch.setattr(app, "_import_serving", end_and_hang)
        return await process.serve()

    monkeypatch.setattr(opening, "STEP_S", 0.0)
    monkeypatch.setattr("os._exit", leave)
    assert asyncio.run(live()) is ExitCode.OK
    assert codes == [ExitCode.OK]


def test_a_death_while_it_starts_does_not_wait_for_a_step_that_hangs(
    tmp_path: Path, model_dir: Path, tellers: Tellers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code tells of it."""
    codes: list[int] = []
    go_on = threading.Event()
    opened = Replicas.open

    def leave(code: int) -> None:
        codes.append(code)
        go_on.set()

    def die_and_hang(*arguments: Any) -> Any:
        replicas = opened(*arguments)
        tellers[0](RuntimeError("the follower died"))
        assert go_on.wait(START_S)
        return replicas

    monkeypatch.setattr(opening, "STEP_S", 0.0)
    monkeypatch.setattr(Replicas, "open", die_and_hang)
    monkeypatch.setattr("os._exit", leave)
    assert asyncio.run(app.Process(make_settings(tmp_path / "data", model_dir)).serve()) is ExitCode.CRASHED
    assert codes == [ExitCode.CRASHED]


@pytest.mark.parametrize(
    ("module", "step"),
    [(serving, "open_store"), (app, "ServedModels"), (app, "_import_serving"), (serving, "replica_options")],
)
def test_a_signal_while_it_starts_is_obeyed_after_that_step(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    """Opening a store may take a minute: what then would only be stopped again is not begun with."""
    served: list[str] = []
    take = getattr(module, step)

    async def live() -> ExitCode:
        loop = asyncio.get_running_loop()
        process = app.Process(make_settings(tmp_path / "data", model_dir), on_serving=served.append)

        def take_and_end(*arguments: Any) -> Any:
            try:
                return take(*arguments)
            finally:
                loop.call_soon_threadsafe(process.end, "a signal")

        monkeypatch.setattr(opening, "STEP_S", 3_600.0)  # else a slow step would end this process
        monkeypatch.setattr(module, step, take_and_end)
        return await process.serve()

    assert asyncio.run(live()) is ExitCode.OK
    assert served == []
    FolderLock.acquire(tmp_path / "data").release()


def test_a_signal_while_it_starts_does_not_wait_for_a_step_that_hangs(server_process: Start) -> None:
    """Nothing was acknowledged yet, so there is nothing to wait for: it ends as one that had served."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://user@127.0.0.1:{port}/none"
        process = server_process(NEARSHORE_STORE__URL=url, NEARSHORE_STORE__CONNECT_TIMEOUT_S="600")
        with silent.accept()[0]:
            process.process.send_signal(signal.SIGTERM)
            assert process.wait() == ExitCode.OK
    assert last_entry(process)["event"].startswith("Stopped in the middle of the start")


def test_signals_of_one_moment_are_one_request(tmp_path: Path, model_dir: Path) -> None:
    """What stops a child and then its group, as coreutils' timeout does, signals twice and wants an orderly stop."""

    async def live() -> ExitCode:
        def end_twice(_: str) -> None:
            process.end("SIGTERM")
            process.end("SIGTERM")

        process = app.Process(make_settings(tmp_path / "data", model_dir), on_serving=end_twice)
        return await process.serve()

    assert asyncio.run(live()) is ExitCode.OK
    FolderLock.acquire(tmp_path / "data").release()


def test_it_takes_all_file_handles_that_it_may_have(server_process: Start) -> None:
    """The usual soft limit is too low for a thousand collections, and raising it needs nobody's permission."""
    process = server_process(prefix=["sh", "-c", 'ulimit -Sn 128 && exec "$@"', "sh"])
    process.address()
    soft, hard = resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard > 128


def test_out_of_file_handles_it_goes_on(server_process: Start) -> None:
    """The log warns at the start; what needs a handle is refused or late, never the end, and comes with room again."""
    process = server_process(prefix=["sh", "-c", 'ulimit -n 128 && exec "$@"', "sh"])
    warning = process.wait_for("The system lets this process open few files for limits.max_collections")
    assert (warning["open_files"], warning["wanted"]) == (128, 4_256)
    address = process.address()
    with Client(address, retries=NO_RETRIES) as client:
        client.wait_ready()
        for n in range(80):
            with contextlib.suppress(NearshoreError):
                client.create_collection(f"c{n}", dimensions=2)
        assert "Too many open files" in process.wait_for("following is held up, serving what is loaded")["detail"]
        while len(existing := client.list_collections()) > 1:
            for each in existing[1:]:
                with contextlib.suppress(UnavailableError):
                    client.delete_collection(each.name)
        process.wait_for("following goes on")
    with Client(address) as client:  # which tries again while what was deleted is still being closed
        client.create_collection("after", dimensions=2)
        client.upsert("after", [Document("a", "cat")], vectors=np.ones((1, 2), np.float32))
        assert client.count("after") == 1
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() == ExitCode.OK
    assert not any("Traceback" in line for line in process.lines)


def test_the_parser_of_filters_is_made_once_it_is_ready(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the start waits for it, which imports what has it, nor the first search with a filter."""
    code = (
        "import nearshore.serving; from nearshore.index.filters import filter_parser as made; print(made.cache_info())"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "currsize=0" in told
    made = threading.Event()
    monkeypatch.setattr(chores, "filter_parser", made.set)
    server = InProcessServer(make_settings(tmp_path / "data", model_dir))
    try:
        assert made.wait(START_S)
    finally:
        server.stop()


def test_the_parser_of_filters_is_made_while_collections_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are loaded can be searched already."""
    made = threading.Event()

    class Loading:
        """Replicas that are never ready."""

        ready = threading.Event()

    async def load() -> bool:
        with ThreadPoolExecutor(1) as pool:
            chore = asyncio.create_task(
                chores.become_ready(cast(Replicas, Loading()), cast(Models, None), Health(), pool)
            )
            try:
                return await asyncio.to_thread(made.wait, START_S)
            finally:
                chore.cancel()

    monkeypatch.setattr(chores, "filter_parser", made.set)
    monkeypatch.setattr(chores, "PROGRESS_INTERVAL_S", 3_600.0)
    assert asyncio.run(load())


def test_what_serves_is_imported_while_the_models_load(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither waits for the other."""
    imports, begun = app._import_serving, threading.Barrier(2)

    def import_beside() -> None:
        begun.wait(START_S)
        imports()

    def load_beside(*arguments: Any) -> Any:
        begun.wait(START_S)
        return ServedModels(*arguments)

    monkeypatch.setattr(app, "_import_serving", import_beside)
    monkeypatch.setattr(app, "ServedModels", load_beside)
    InProcessServer(make_settings(tmp_path / "data", model_dir)).stop()


def test_the_entry_point_imports_little() -> None:
    """What loads models, and next to nothing that is used behind them or by no server."""
    code = "import nearshore.app, sys; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    later = {"faiss", "lark", "nearshore.index", "nearshore.replica", "nearshore.search", "nearshore.service.servicers"}
    others = {"google.protobuf.json_format", "kubernetes", "nearshore.client", "onnx", "psycopg", "pyarrow"}
    assert "onnxruntime" in told
    assert not (later | others) & set(told)


@pytest.mark.parametrize("entry", ["nearshore.app", "nearshore.cli.main"])
def test_native_threads_are_limited_before_their_libraries_load(entry: str) -> None:
    """NumPy, FAISS, ONNX Runtime and tokenizers read their variables once, when they are imported."""
    watch = f"""
import os, sys
class Watch:
    def find_spec(self, name, *_):
        if name in ("numpy", "faiss", "onnxruntime", "tokenizers"):
            for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
                assert os.environ.get(variable) == "1", (name, variable)
sys.meta_path.insert(0, Watch())
import {entry}, nearshore.app, nearshore.serving
assert "numpy" in sys.modules
"""
    subprocess.run(
        [sys.executable, "-c", watch], check=True, env={"PYTHONPATH": f"{ROOT / 'server'}:{ROOT / 'indexer'}"}
    )
