"""Servers among bad settings, files and disks: one clear line and an exit code, or a refusal and life after it."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nearshore.client import Client, Document, Query
from nearshore.errors import StorageFullError, UnavailableError
from nearshore.exit_codes import ExitCode
from nearshore.store.errors import StoreCorruptError
from nearshore.store.schema import APPLICATION_ID, FILE_NAME, MIGRATIONS
from tests.servers import InProcessServer, ServerProcess
from tests.tiny_bert import make_checkpoint

ServerStarter = Callable[..., ServerProcess]


@dataclass(frozen=True)
class Place:
    """Where a server that cannot start is prepared."""

    folder: Path
    data_dir: Path
    model_dir: Path
    other: InProcessServer  # one that runs


@dataclass(frozen=True)
class Start:
    """One line of the table: variables of a server that must refuse to start, and what its last line says."""

    name: str
    prepare: Callable[[Place], Mapping[str, str]]
    reason: str
    fault: str
    advice: str
    code: ExitCode = ExitCode.UNAVAILABLE


def in_config(place: Place, text: str) -> Mapping[str, str]:
    """A configuration file."""
    file = place.folder / "config.toml"
    file.write_text(text)
    return {"NEARSHORE_CONFIG": str(file)}


def changed_bundle(place: Place) -> Mapping[str, str]:
    """A copy of the bundle with one bit changed in the middle of the model."""
    copy = place.folder / "models"
    shutil.copytree(place.model_dir / "tiny", copy / "tiny")
    flip_a_bit(copy / "tiny" / "model.onnx")
    return {"NEARSHORE_MODEL_DIR": str(copy)}


def stored(place: Place, content: bytes) -> Mapping[str, str]:
    """Something else in place of the database."""
    place.data_dir.mkdir()
    (place.data_dir / FILE_NAME).write_bytes(content)
    return {}


def database(place: Place, *statements: str) -> Mapping[str, str]:
    """A database that these statements made."""
    place.data_dir.mkdir()
    with closing(sqlite3.connect(place.data_dir / FILE_NAME)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return {}


def file_for_folder(place: Place) -> Mapping[str, str]:
    """A data folder that would lie in a file."""
    (place.folder / "file").touch()
    return {"NEARSHORE_DATA_DIR": str(place.folder / "file" / "data")}


def flip_a_bit(file: Path) -> None:
    """In its middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


NEWER = (f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
USAGE = ExitCode.USAGE
TABLE = [
    Start("misspelt variable", lambda _: {"NEARSHORE_SERVER__PROT": "1"},
          "INVALID_SETTINGS", "NEARSHORE_SERVER__PROT is no setting", "mean NEARSHORE_SERVER__PORT?", USAGE),
    Start("unknown key in the file", lambda place: in_config(place, "[server]\nprot = 1"),
          "INVALID_SETTINGS", "server.prot is no setting", "Did you mean server.port?", USAGE),
    Start("impossible value", lambda _: {"NEARSHORE_SERVER__PORT": "70000"},
          "INVALID_SETTINGS", "server.port is '70000'", "less than or equal to 65535", USAGE),
    Start("file that is no TOML", lambda place: in_config(place, "server: {port: 1}"),
          "INVALID_SETTINGS", "not valid TOML", "docs/settings.md", USAGE),
    Start("no model", lambda place: {"NEARSHORE_MODEL_DIR": str(place.folder)},
          "MODEL_NOT_FOUND", "no model bundle at", "nearshore model get tiny --from FOLDER", ExitCode.NOT_FOUND),
    Start("no int8", lambda _: {"NEARSHORE_EMBEDDING__PRECISION": "int8"},
          "PRECISION_NOT_FOUND", "has no int8 graph", "nearshore model get tiny --int8", ExitCode.NOT_FOUND),
    Start("no model of the catalogue", lambda _: {"NEARSHORE_EMBEDDING__MODEL": "all-MiniLM-L6-v2"},
          "MODEL_NOT_FOUND", "no model bundle at", "Get it with: nearshore model get all-MiniLM-L6-v2",
          ExitCode.NOT_FOUND),
    Start("bundle with a changed byte", changed_bundle, "BUNDLE_CORRUPT", "model.onnx", "model get tiny"),
    Start("database of random bytes", lambda place: stored(place, np.random.default_rng(0).bytes(50_000)),
          "STORE_CORRUPT", "is damaged", "restore the data folder from a backup"),
    Start("database of another program", lambda place: database(place, "CREATE TABLE theirs(a)"),
          "STORE_FORMAT", "another program", "Choose another data_dir"),
    Start("database of a newer version", lambda place: database(place, "CREATE TABLE ours(a)", *NEWER),
          "STORE_FORMAT", "schema version", "or a later one"),
    Start("file in place of a folder", file_for_folder, "DATA_FOLDER_READ_ONLY", "is not a folder", "another data_dir"),
    Start("folder of another server", lambda place: {"NEARSHORE_DATA_DIR": str(place.other.settings.data_dir)},
          "DATA_FOLDER_LOCKED", f"in use by process {os.getpid()}, serving at 127.0.0.1:", "Talk to that server"),
    Start("port in use", lambda place: {"NEARSHORE_SERVER__PORT": place.other.address.rpartition(":")[2]},
          "PORT_IN_USE", "the port is in use", "0 takes a free one"),
    Start("host without an address", lambda _: {"NEARSHORE_SERVER__HOST": "nohost.invalid"},
          "ADDRESS_UNUSABLE", "Cannot listen on nohost.invalid:", "an address of this machine"),
    Start("host of another machine", lambda _: {"NEARSHORE_SERVER__HOST": "192.0.2.1"},
          "ADDRESS_UNUSABLE", "Cannot assign requested address", "an address of this machine"),
]  # fmt: skip


@pytest.fixture(scope="module")
def own_mounts() -> Sequence[str]:
    """The command that gives what runs behind it mounts of its own; where nobody may have any, the test is skipped."""
    for command in (["unshare", "-rm"], ["unshare", "-m"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("no disk of its own to fill: this machine permits neither user namespaces nor mounts (unshare -rm)")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where the data folder is, for a disk to be mounted there."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def mounting(own_mounts: Sequence[str], mount: str) -> list[str]:
    """The prefix of a server that runs after the shell command `mount`, which nobody else sees the effect of."""
    return [*own_mounts, "sh", "-c", f'{mount} && exec "$@"', "sh"]


def refused(process: ServerProcess) -> dict[str, str]:
    """What the last line of a server that did not start says: event, reason, remedy."""
    assert not any("Traceback" in line for line in process.lines)
    entry = json.loads(process.lines[-1])
    error = entry.get("error", entry)
    return {"event": error.get("message") or error["event"], "reason": error["reason"], "remedy": error["remedy"]}


def logged_until_the_end(process: ServerProcess, event: str = "") -> list[dict[str, str]]:
    """End a server in order; returns its log entries of this event, or all."""
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() == ExitCode.OK
    assert not any("Traceback" in line for line in process.lines)
    entries = [json.loads(line) for line in process.lines]
    return [entry for entry in entries if event in ("", entry["event"])]


@pytest.mark.parametrize("start", TABLE, ids=lambda start: start.name.replace(" ", "-"))
def test_a_server_that_cannot_start_says_why_and_what_to_do(
    start: Start, server_process: ServerStarter, server: InProcessServer, tmp_path: Path, model_dir: Path
) -> None:
    """It ends with the exit code of the table and one line of fault and remedy; a server in its way lives on."""
    place = Place(tmp_path, tmp_path / "data", model_dir, server)
    process = server_process(**start.prepare(place))
    code = process.wait()
    said = refused(process)
    assert (code, said["reason"]) == (start.code, start.reason)
    assert start.fault in said["event"]
    assert start.advice in f"{said['event']} {said['remedy']}"
    with server.client() as client:
        assert client.embed(["cat"]).vectors.shape == (1, 32)


def test_a_read_only_data_folder_is_refused(
    server_process: ServerStarter, own_mounts: Sequence[str], disk: Path
) -> None:
    """A mount does not bow to root, as permission bits do."""
    read_only = f"mount --bind {disk} {disk} && mount -o remount,bind,ro {disk}"
    process = server_process(prefix=mounting(own_mounts, read_only))
    assert process.wait() == ExitCode.UNAVAILABLE
    said = refused(process)
    assert said["reason"] == "DATA_FOLDER_READ_ONLY"
    assert "Read-only file system" in said["event"]
    assert "Make it writable" in said["remedy"]


def test_a_read_only_model_folder_is_told(own_mounts: Sequence[str], disk: Path, tmp_path: Path) -> None:
    """Before anything is fetched or computed, with the settings that name another folder."""
    read_only = f"mount --bind {disk} {disk} && mount -o remount,bind,ro {disk}"
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    command = ["-m", "nearshore", "--json", "--model-dir", str(disk), "model", "get", "mine", "--from", str(checkpoint)]
    done = subprocess.run(
        [*mounting(own_mounts, read_only), sys.executable, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.UNAVAILABLE
    told = json.loads(done.stderr)["error"]
    assert (told["reason"], str(disk) in told["message"]) == ("MODEL_FOLDER_READ_ONLY", True)
    assert "Read-only file system" in told["message"]
    assert "NEARSHORE_MODEL_DIR" in told["remedy"]


def test_a_disk_without_room_for_a_store_is_refused(
    server_process: ServerStarter, own_mounts: Sequence[str], disk: Path
) -> None:
    """There is nothing to serve from it."""
    process = server_process(prefix=mounting(own_mounts, f"mount -t tmpfs -o size=64k none {disk}"))
    assert process.wait() == ExitCode.UNAVAILABLE
    said = refused(process)
    assert said["reason"] == "STORAGE_FULL"
    assert "Free space" in said["remedy"]


def fill_up(file: Path) -> None:
    """Make a file of all that is free where it lies."""
    disk = os.statvfs(file.parent)
    file.write_bytes(bytes(disk.f_bavail * disk.f_frsize))
    assert os.statvfs(file.parent).f_bavail == 0


def test_a_full_disk_stops_writes_only_and_not_for_ever(
    server_process: ServerStarter, own_mounts: Sequence[str], disk: Path
) -> None:
    """Writes are refused as a whole, reads go on, the log names the remedy, and with room again writes work again."""
    process = server_process(prefix=mounting(own_mounts, f"mount -t tmpfs -o size=4m none {disk}"))
    with Client(process.address()) as client:
        client.wait_ready()
        client.create_collection("docs", model="tiny")
        client.upsert("docs", [Document("cat", "red cat")])
        assert client.count("docs") == 1
        filler = Path(f"/proc/{process.process.pid}/root{disk}/filler")
        fill_up(filler)
        for write in (
            lambda: client.upsert("docs", [Document("cat", "another cat"), Document("dog", "green dog")]),
            lambda: client.delete("docs", ids=["cat"]),
            lambda: client.delete_collection("docs"),
            lambda: client.create_collection("other", model="tiny"),
        ):
            with pytest.raises(StorageFullError, match=r"What did not fit is not written\. Free space"):
                write()
        assert [hit.document.text for hit in client.search("docs", "cat").hits] == ["red cat"]
        assert [each.name for each in client.list_collections()] == ["docs"]
        filler.unlink()
        client.upsert("docs", [Document("dog", "green dog")])
        client.create_collection("other", model="tiny")
        assert {hit.document.text for hit in client.search("docs", "cat").hits} == {"red cat", "green dog"}
    refusals = [entry for entry in logged_until_the_end(process) if entry["level"] == "warning"]
    assert [entry["reason"] for entry in refusals] == 4 * ["STORAGE_FULL"]
    assert all("Free space" in entry["remedy"] for entry in refusals)


def fill_and_stop(process: ServerProcess, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    """Write one document a vector into a new collection "docs" and end the server in order."""
    with Client(process.address()) as client:
        client.wait_ready()
        client.create_collection("docs", dimensions=vectors.shape[1])
        documents = [Document(str(row), f"text {row}") for row in range(len(vectors))]
        client.upsert("docs", documents, vectors=vectors)
        assert client.count("docs") == len(vectors)
    logged_until_the_end(process)


@pytest.mark.parametrize("file", ["rows.f32", "payload.bin", "manifest.json"])
def test_a_corrupt_snapshot_is_set_aside(server_process: ServerStarter, tmp_path: Path, file: str) -> None:
    """The log says so, the index comes from the store, and searches find what they should."""
    vectors = np.random.default_rng(0).normal(size=(1_000, 4)).astype(np.float32)
    fill_and_stop(server_process(), vectors)
    (snapshot,) = (tmp_path / "data" / "snapshots").glob("*/*")
    flip_a_bit(snapshot / file)
    process = server_process()
    with Client(process.address()) as client:
        client.wait_ready()
        hits = client.search("docs", Query(vector=vectors[7], limit=5)).hits
    cosines = vectors @ vectors[7] / np.linalg.norm(vectors, axis=1)
    assert [hit.document.id for hit in hits] == [str(row) for row in np.argsort(-cosines)[:5]]
    assert [hit.document.text for hit in hits] == [f"text {hit.document.id}" for hit in hits]
    (entry,) = logged_until_the_end(process, "snapshot refused and set aside")
    assert file in entry["detail"]
    assert "rebuilt from the store" in entry["remedy"]


def test_a_database_damaged_inside_is_named_and_never_half_served(
    server_process: ServerStarter, tmp_path: Path
) -> None:
    """The server is not ready, calls and log say what is damaged and what to do, and it ends in order."""
    fill_and_stop(server_process(), np.eye(100, dtype=np.float32))
    with (tmp_path / "data" / FILE_NAME).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(1 << 13)  # behind the first page, so that it opens
        file.write(b"\x5a" * (size - (1 << 13)))
    process = server_process()
    with Client(process.address()) as client:
        with pytest.raises(StoreCorruptError, match="restore the data folder from a backup"):
            client.count("docs")
        with pytest.raises(StoreCorruptError):
            client.upsert("docs", [Document("1", "cat")], vectors=np.eye(1, 100, dtype=np.float32))
        with pytest.raises(UnavailableError):
            client.wait_ready(timeout_s=0.1)
    (entry,) = logged_until_the_end(process, "following is held up, serving what is loaded")
    assert "is damaged" in entry["detail"]
