"""The command line as processes: without a server, beside one, interrupted, killed, and behind a closed pipe."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nearshore.client import Client
from nearshore.exit_codes import ExitCode
from nearshore.store.lock import read_holder
from tests.servers import ServerProcess

WAIT_S = 60
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, model_dir: Path) -> Start:
    """Starts `nearshore ...` on the data folder tmp_path/data."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEARSHORE_")}
    settings = {
        "NEARSHORE_DATA_DIR": str(tmp_path / "data"),
        "NEARSHORE_MODEL_DIR": str(model_dir),
        "NEARSHORE_EMBEDDING__MODEL": "tiny",
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }

    def start_command(
        *arguments: str, python: Sequence[str] = (sys.executable,), **options: Any
    ) -> "subprocess.Popen[str]":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [*python, "-m", "nearshore", *arguments]
        return subprocess.Popen(command, env={**kept, **settings}, text=True, **{**pipes, **options})

    return start_command


def finish(process: "subprocess.Popen[str]", given: str = "") -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = process.communicate(given, timeout=WAIT_S)
    return process.returncode, out, err


def lines(count: int) -> str:
    """So many documents as JSON lines."""
    return "".join(json.dumps({"id": str(n), "text": f"the red fish number {n}"}) + "\n" for n in range(count))


def test_without_a_server_then_beside_one(start: Start, server_process: Callable[..., ServerProcess]) -> None:
    """The same command opens a free data folder itself, and goes through the server that has it open."""
    code, out, err = finish(start("index", "-", "--json"), lines(50))
    assert code == ExitCode.OK, err
    first = json.loads(out)
    assert (first["documents"], first["embedded"], first["server"]) == (50, 50, "")
    server = server_process()
    server.wait_for("Ready")
    code, out, err = finish(start("index", "-", "--json"), lines(60))
    assert code == ExitCode.OK, err
    second = json.loads(out)
    assert (second["documents"], second["embedded"]) == (60, 10)
    assert second["server"]
    code, out, err = finish(start("search", "the red fish number 55", "-n", "1", "--json"))
    assert json.loads(out)["hits"][0]["id"] == "55"
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == ExitCode.OK


def test_the_server_of_another_folder_is_left_alone(
    start: Start, server_process: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """What is meant for a folder that nobody serves does not reach one that listens where that one would."""
    server = server_process()
    port = server.address().rpartition(":")[2]
    server.wait_for("Ready")
    code, _, err = finish(start("index", "-"), lines(1))
    assert code == ExitCode.OK, err
    config = tmp_path / "nearshore.toml"
    config.write_text(f"[server]\nport = {port}\n")
    elsewhere = ("--config", str(config), "--data-dir", str(tmp_path / "other"), "--json")
    code, _, err = finish(start(*elsewhere, "collection", "delete", "default", "--yes"))
    assert (code, json.loads(err)["error"]["reason"]) == (ExitCode.UNAVAILABLE, "FOLDER_NOT_SERVED")
    code, out, _ = finish(start("search", "fish", "--json"))
    assert len(json.loads(out)["hits"]) == 1


def test_ctrl_c_keeps_what_is_written(start: Start) -> None:
    """It ends with code 130, says what to do, shows no traceback, and a second run goes on from there."""
    process = start("index", "-")
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(lines(2_000))
    process.stdin.flush()  # and not closed: the command waits for more
    for line in process.stderr:
        if "Created the collection" in line:
            break
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert process.wait(WAIT_S) == ExitCode.INTERRUPTED
    assert "Run the same command again" in err
    assert "Traceback" not in err
    assert "Fatal" not in err
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    code, out, err = finish(start("index", "-", "--json"), lines(2_000))
    assert (code, json.loads(out)["documents"]) == (ExitCode.OK, 2_000), err


@pytest.fixture
def evaluation(tmp_path: Path) -> Iterator[Sequence[str]]:
    """Arguments of an eval whose corpus never ends, for it comes through a pipe."""
    (tmp_path / "queries.jsonl").write_text('{"id": "q1", "text": "fish"}\n')
    (tmp_path / "qrels").write_text("q1\t1\t1\n")
    os.mkfifo(tmp_path / "corpus.jsonl")
    writing = os.open(tmp_path / "corpus.jsonl", os.O_RDWR)
    files = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels"}
    yield ("eval", *(f"--{option}={tmp_path / name}" for option, name in files.items()))
    os.close(writing)


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """The line of standard error that has these words."""
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


INTERRUPT_IGNORED = ("sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable)  # as of a job in a script's background


@pytest.mark.parametrize(
    ("number", "python"),
    [
        (signal.SIGINT, (sys.executable,)),
        (signal.SIGTERM, (sys.executable,)),
        (signal.SIGTERM, INTERRUPT_IGNORED),
        (signal.SIGHUP, ("env", "--default-signal=HUP", sys.executable)),
        (signal.SIGKILL, (sys.executable,)),
    ],
)
def test_eval_takes_its_server_along(
    start: Start, evaluation: Sequence[str], tmp_path: Path, number: signal.Signals, python: Sequence[str]
) -> None:
    """However it is ended, neither the server of its own nor the temporary folder outlives it."""
    process = start(*evaluation, python=python)
    read_until(process, "Created the collection")
    check_nothing_is_left(process, tmp_path, number)


def test_the_server_of_eval_keeps_to_its_folder(start: Start, evaluation: Sequence[str], tmp_path: Path) -> None:
    """Whatever store the environment or the configuration file names: it may be that of a cluster."""
    nowhere = "postgresql://user@127.0.0.1:1/none"
    config = tmp_path / "nearshore.toml"
    config.write_text(f'[store]\nurl = "{nowhere}"\n')
    by_environment, python = ("env", f"NEARSHORE_STORE__URL={nowhere}", sys.executable), (sys.executable,)
    for options, command in ((evaluation, by_environment), (("--config", str(config), *evaluation), python)):
        process = start(*options, python=command)
        read_until(process, "Created the collection")
        check_nothing_is_left(process, tmp_path, signal.SIGTERM)


def test_demo_takes_its_server_along(start: Start, tmp_path: Path) -> None:
    """SIGTERM ends it as Ctrl-C does."""
    process = start("demo")
    read_until(process, "The server listens on")
    check_nothing_is_left(process, tmp_path, signal.SIGTERM)


def check_nothing_is_left(process: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals) -> None:
    """Send the signal; fails unless the private server ends, and its folder is gone then."""
    (folder,) = tmp_path.glob("nearshore-*")
    holder = read_holder(folder / "data")
    assert holder is not None
    server = os.pidfd_open(holder.pid)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == (-number if number == signal.SIGKILL else ExitCode.INTERRUPTED), err
    assert "Traceback" not in err
    assert select.select([server], [], [], WAIT_S)[0] == [server]  # readable: it has ended
    os.close(server)
    assert not folder.exists()


def test_eval_takes_its_collection_along(
    start: Start, evaluation: Sequence[str], server_process: Callable[..., ServerProcess]
) -> None:
    """SIGTERM leaves nothing of it on the server of others."""
    address = server_process().address()
    process = start("--server", address, *evaluation)
    read_until(process, "Created the collection")
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == ExitCode.INTERRUPTED, err
    with Client(address) as client:
        assert client.list_collections() == []


def test_eval_names_the_collection_that_it_cannot_delete(
    start: Start, evaluation: Sequence[str], server_process: Callable[..., ServerProcess]
) -> None:
    """A server that is gone still has it in its store: the command that deletes it is told."""
    server = server_process()
    address = server.address()
    process = start("--server", address, *evaluation)
    name = read_until(process, "Created the collection").split()[3]
    server.kill()
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == ExitCode.INTERRUPTED, err
    assert f"delete it with: nearshore --server {address} collection delete {name} --yes" in err


@pytest.fixture
def start_as_first(start: Start) -> Start:
    """Starts `nearshore ...` as process 1 of a namespace of its own, as the command of a container is."""
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the system lets nobody make namespaces")
    python = [*alone, sys.executable, "-v"]  # which tells each module on standard error, once it is imported
    return lambda *arguments: start(*arguments, python=python)


@pytest.mark.parametrize("imported", ["nearshore.cli.main", "nearshore.app"])
def test_sigterm_ends_process_1_before_it_serves(start_as_first: Start, imported: str) -> None:
    """The system keeps a signal without a handler from process 1: a container would go on until it is killed."""
    outer = start_as_first("serve", "--port", "0")
    assert outer.stderr is not None
    for line in outer.stderr:
        if line.startswith(f"import '{imported}'"):
            break
    (inner,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    os.kill(int(inner), signal.SIGTERM)
    finish(outer)
    assert outer.returncode in {128 + signal.SIGTERM, ExitCode.OK}  # OK: the server had begun by then


def test_a_closed_pipe_is_no_error(start: Start, server_process: Callable[..., ServerProcess]) -> None:
    """`nearshore ... | head` ends quietly."""
    server_process().wait_for("Ready")
    reading, writing = os.pipe()
    os.close(reading)
    process = start("embed", *(f"fish {n}" for n in range(50)), stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (ExitCode.OK, "")


def test_a_data_folder_without_model_says_how_to_get_one(start: Start, tmp_path: Path) -> None:
    """The remedy is a command."""
    code, out, err = finish(start("index", "-", "--model-dir", str(tmp_path / "no-models")), lines(1))
    assert (code, out) == (ExitCode.NOT_FOUND, "")
    assert "nearshore model get tiny" in err


def test_eval_ends_with_what_ended_its_server(start: Start, evaluation: Sequence[str], tmp_path: Path) -> None:
    """The reason, remedy and exit code are those of `nearshore serve`; nothing is left of it."""
    code, out, err = finish(start(*evaluation, "--json", "--model-dir", str(tmp_path / "no-models")))
    assert (code, out) == (ExitCode.NOT_FOUND, "")
    error = json.loads(err.splitlines()[-1])["error"]
    assert (error["reason"], error["exit_code"]) == ("MODEL_NOT_FOUND", ExitCode.NOT_FOUND)
    assert "nearshore model get tiny" in error["remedy"]
    assert list(tmp_path.glob("nearshore-*")) == []
