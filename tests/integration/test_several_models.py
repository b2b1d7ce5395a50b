"""Several models in one real server: each answers with its own vectors, and is loaded, bounded and unloaded as set."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from nearshore.bundle import Bundle, CorruptBundleError
from nearshore.cli import main
from nearshore.client import AsyncClient, Client, Document
from nearshore.documents.errors import (
    FingerprintMismatchError,
    ModelNotServedError,
    ModelStaysLoadedError,
    ModelTooLargeError,
)
from nearshore.documents.leases import Engine
from nearshore.errors import DeadlineError, InvalidSettingsError, NearshoreError
from nearshore.exit_codes import ExitCode
from nearshore.served_models import BundleFolder
from nearshore.v1.embedding_service_pb2 import ListModelsRequest
from nearshore.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from tests.servers import InProcessServer, ServerProcess, make_settings
from tests.tiny_bert import embed_golden, make_bundle

PATIENCE_S = 20
TEXTS = ("red fish", "a bird in the city", "music")
NAMES = ("tiny", "small", "wide")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Three models of one architecture; their graphs are of much the same size."""
    folder = tmp_path_factory.mktemp("bundles")
    return {name: make_bundle(folder, name, seed=seed) for seed, name in enumerate(NAMES)}


@pytest.fixture
def folder(tmp_path: Path, bundles: dict[str, Bundle]) -> Path:
    """A model folder of the test's own that holds them."""
    for name, bundle in bundles.items():
        shutil.copytree(bundle.path, tmp_path / "models" / name)
    return tmp_path / "models"


class Servers:
    """One server at a time, on the same data; its default model is tiny."""

    def __init__(self, data_dir: Path, model_dir: Path) -> None:
        self._folders = data_dir, model_dir
        self._clients: list[Client] = []
        self.running: InProcessServer | None = None

    def __call__(self, **embedding: Any) -> Client:
        """Start one with these settings of `embedding`, in place of the one before; returns a client of it."""
        self.stop()
        flags = {f"embedding__{name}": value for name, value in embedding.items()}
        self.running = InProcessServer(make_settings(*self._folders, **flags))
        return self.client()

    def client(self, **options: Any) -> Client:
        """Another client of the server that runs."""
        assert self.running is not None
        self._clients.append(self.running.client(**options))
        return self._clients[-1]

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.running is not None:
            self.running.stop()
            self.running = None


@pytest.fixture
def start(tmp_path: Path, folder: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path / "data", folder)
    yield servers
    servers.stop()


class Gate:
    """Loads that stop where they begin until the test lets them go on, or fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.loads: list[str] = []
        self.error: NearshoreError | None = None
        load = BundleFolder.load

        def gated(folder: BundleFolder, name: str, *make_room: Callable[[int], None]) -> Engine:
            if name == "tiny":
                return load(folder, name)
            self.loads.append(name)
            self.begun.release()
            assert self.go_on.acquire(timeout=PATIENCE_S)
            if self.error is not None:
                raise self.error
            return load(folder, name, *make_room)

        monkeypatch.setattr(BundleFolder, "load", gated)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def room_for(count: int, bundles: dict[str, Bundle]) -> int:
    """Bytes that so many of the models have, and a little, but less than one more has."""
    return count * max(bundle.size_bytes for bundle in bundles.values()) + 1_000


@pytest.mark.parametrize("settings", [{"models": "small,wide"}, {"on_demand": True}])
def test_every_model_answers_with_its_own_vectors(
    start: Servers, bundles: dict[str, Bundle], settings: dict[str, Any]
) -> None:
    """Named or by default, at once and mixed; vectors travel with their own model's fingerprint."""
    client = start(**settings)
    with ThreadPoolExecutor(8) as pool:
        asked = [*NAMES, ""] * 8
        answers = list(pool.map(lambda name: client.embed(TEXTS, model=name), asked))
    for name, answer in zip(asked, answers, strict=True):
        bundle = bundles[name or "tiny"]
        assert (answer.model, answer.fingerprint) == (name or "tiny", bundle.manifest.fingerprint)
        np.testing.assert_allclose(answer.vectors, embed_golden(bundle, TEXTS), atol=1e-5)
    assert client.tokenize(["a cat"], model="wide").model == "wide"


@pytest.mark.parametrize("settings", [{"models": "small,wide"}, {"on_demand": True, "cache_bytes": 1 << 20}])
def test_streams_and_vectors_of_tokens_are_of_the_model_that_is_named(start: Servers, settings: dict[str, Any]) -> None:
    """As those of a server that has that model alone, though all models are asked for the same texts at once."""
    client = start(**settings)

    def ask(name: str) -> tuple[bytes, list[bytes], list[tuple[str, bytes]]]:
        plain, answer = client.embed(TEXTS, model=name), client.embed(TEXTS, model=name, token_vectors=True)
        assert plain.vectors.tobytes() == answer.vectors.tobytes()
        stream = [each.result() for each in client.embed_stream([TEXTS] * 3, model=name)]
        told = [(each.model, each.vectors.tobytes()) for each in stream]
        return plain.vectors.tobytes(), [each.vectors.tobytes() for each in answer.token_vectors], told

    with ThreadPoolExecutor(6) as pool:
        answers = list(zip(NAMES * 2, pool.map(ask, NAMES * 2), strict=True))
    alone = {}
    for name in NAMES:
        client = start(model=name)
        alone[name] = ask(name)
    for name, answer in answers:
        assert answer == alone[name]
        assert answer[2] == [(name, answer[0])] * 3
    assert len({vectors for vectors, *_ in alone.values()}) == 3


def test_collections_of_every_model_work_side_by_side_and_after_a_restart(start: Servers) -> None:
    """Each embeds its documents and queries by its own model, which is found again by the fingerprint alone."""
    client = start(models="small,wide")
    for name in NAMES:
        assert client.create_collection(name, model=name).model == name
        client.upsert(name, [Document(each, each) for each in TEXTS])
    client = start(on_demand=True)
    for name in NAMES:
        client.upsert(name, [Document("city", "city")])
        hits = client.search(name, TEXTS[1]).hits
        assert (len(hits), hits[0].document.id) == (4, TEXTS[1])
        assert hits[0].score == pytest.approx(1.0, abs=1e-6)


def test_another_model_is_refused_unless_it_is_to_be_loaded(start: Servers) -> None:
    """The refusals name the settings that would serve it: by name, and for a collection of its."""
    client = start(models="small")
    client.create_collection("c", model="small")
    client = start()
    with pytest.raises(ModelNotServedError, match=r"serves tiny.*embedding\.models.*embedding\.on_demand"):
        client.embed(TEXTS, model="wide")
    with pytest.raises(FingerprintMismatchError, match=r"embedding\.models or embedding\.on_demand"):
        client.search("c", "a cat")
    client = start(on_demand=True)
    with pytest.raises(ModelNotServedError, match=r"no bundle 'none'.*nearshore model get none"):
        client.embed(TEXTS, model="none")


def test_the_models_of_a_server_are_listed(start: Servers, folder: Path, bundles: dict[str, Bundle]) -> None:
    """By name: those that calls can name, which of them are loaded and what they are; a folder that is none is not."""
    shutil.copytree(folder / "small", folder / "Small (copy)")
    (folder / "broken").mkdir()
    (folder / "broken" / "bundle.json").write_text("{", encoding="utf-8")
    client = start(on_demand=True)
    client.embed(TEXTS, model="wide")
    found = client.list_models()
    assert [each.name for each in found] == ["small", "tiny", "wide"]
    assert [each.is_default for each in found] == [False, True, False]
    assert [each.loaded for each in found] == [False, True, True]
    assert [each.size_bytes for each in found] == [0, bundles["tiny"].size_bytes, bundles["wide"].size_bytes]
    for each in found:
        manifest = bundles[each.name].manifest
        assert (each.fingerprint, each.precision) == (manifest.fingerprint, "fp32")
        assert (each.dimensions, each.max_tokens) == (manifest.dimensions, manifest.max_tokens)
        assert not each.is_cross_encoder
    client = start(models="small")
    assert [each.name for each in client.list_models()] == ["small", "tiny"]  # no others would be loaded


def test_a_list_of_models_comes_in_pages(start: Servers) -> None:
    """Each begins behind the last name of the one before; a token of another list is refused."""
    start(on_demand=True)
    assert start.running is not None
    with grpc.insecure_channel(start.running.address) as channel:
        stub = EmbeddingServiceStub(channel)
        names, token = [], ""
        for _ in range(2):
            page = stub.ListModels(ListModelsRequest(page_size=2, page_token=token))
            names.append([each.name for each in page.models])
            token = page.next_page_token
    assert (names, token) == ([["models/small", "models/tiny"], ["models/wide"]], "")


def test_a_slow_model_folder_holds_up_no_other_call(start: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read for a list of models, texts are embedded, and a deadline of another list holds."""
    client = start(on_demand=True)
    begun, go_on, bundles = threading.Event(), threading.Event(), BundleFolder.bundles

    def slow(folder: BundleFolder) -> list[Bundle]:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return bundles(folder)

    monkeypatch.setattr(BundleFolder, "bundles", slow)
    with ThreadPoolExecutor(1) as pool:
        listed = pool.submit(client.list_models)
        assert begun.wait(PATIENCE_S)
        assert client.embed(TEXTS).model == "tiny"
        with pytest.raises(DeadlineError):
            start.client(timeout_s=0.3).list_models()
        go_on.set()
        assert [each.name for each in listed.result()] == ["small", "tiny", "wide"]


def test_first_requests_load_a_model_once(start: Servers, gate: Gate) -> None:
    """However many come while it is loaded; meanwhile the server answers others, and a deadline holds."""
    client = start(on_demand=True)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(client.embed, TEXTS, model="small") for _ in range(4)]
        assert gate.begun.acquire(timeout=PATIENCE_S)
        assert client.embed(TEXTS).model == "tiny"
        with pytest.raises(DeadlineError):
            start.client(timeout_s=0.3).embed(TEXTS, model="small")
        gate.go_on.release()
        assert {answer.result().model for answer in answers} == {"small"}
    assert gate.loads == ["small"]


def test_what_was_longest_unused_makes_room(start: Servers, gate: Gate, bundles: dict[str, Bundle]) -> None:
    """The default stays, the last used one too if it fits; what was unloaded is loaded again when it is asked for."""
    client = start(on_demand=True, max_model_bytes=room_for(2, bundles))
    for _ in range(4):
        gate.go_on.release()
    for name in ("small", "small", "tiny", "wide", "wide", "small"):
        answer = client.embed(TEXTS, model=name)
        assert answer.fingerprint == bundles[name].manifest.fingerprint
    assert gate.loads == ["small", "wide", "small"]


def test_a_model_beyond_the_bound_is_refused_at_once(
    start: Servers, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is unloaded in vain, and the setting is named; at the start it stops before anything is loaded."""
    client = start(on_demand=True, max_model_bytes=room_for(1, bundles))
    with pytest.raises(ModelTooLargeError, match=r"embedding\.max_model_bytes"):
        client.embed(TEXTS, model="small")
    assert client.embed(TEXTS).model == "tiny"
    monkeypatch.delattr(BundleFolder, "load")
    with pytest.raises(InvalidSettingsError, match=r"tiny, small.*embedding\.max_model_bytes"):
        start(models="small", max_model_bytes=room_for(1, bundles))


def test_a_load_that_fails_is_tried_again(start: Servers, gate: Gate) -> None:
    """All that waited are told why; once it is mended, the next request is answered."""
    client = start(on_demand=True)
    gate.error = CorruptBundleError(Path("small"), "model.onnx has changed")
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.embed, TEXTS, model="small") for _ in range(3)]
        assert gate.begun.acquire(timeout=PATIENCE_S)
        gate.go_on.release(3)
        for answer in answers:
            with pytest.raises(NearshoreError) as caught:
                answer.result()
            assert caught.value.reason == "BUNDLE_CORRUPT"
    gate.error = None
    gate.go_on.release()
    assert client.embed(TEXTS, model="small").model == "small"


@pytest.mark.parametrize("file", ["bundle.json", "model.onnx"])
def test_a_pipe_in_a_bundle_holds_up_no_load(start: Servers, folder: Path, file: str) -> None:
    """Who asks for that model is told of it; models are listed, and others are loaded."""
    client = start(on_demand=True)
    (folder / "small" / file).unlink()
    os.mkfifo(folder / "small" / file)
    with pytest.raises(NearshoreError, match=f"{file} is not a regular file") as caught:
        client.embed(TEXTS, model="small")
    assert caught.value.reason == "BUNDLE_CORRUPT"
    assert {"tiny", "wide"} <= {each.name for each in client.list_models()}
    assert client.embed(TEXTS, model="wide").model == "wide"


def test_a_bundle_that_is_corrupt_takes_no_room(start: Servers, folder: Path, bundles: dict[str, Bundle]) -> None:
    """Its files are verified before others are unloaded for it."""
    client = start(on_demand=True, max_model_bytes=room_for(2, bundles))
    client.embed(TEXTS, model="small")
    graph = folder / "wide" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    with pytest.raises(NearshoreError, match=r"model\.onnx has changed"):
        client.embed(TEXTS, model="wide")
    assert [each.name for each in client.list_models() if each.loaded] == ["small", "tiny"]


def test_a_bundle_that_is_exchanged_while_it_is_not_loaded_is_another_model(
    start: Servers, folder: Path, bundles: dict[str, Bundle]
) -> None:
    """Its collection is refused, not fed with other vectors, and is served from a copy of the old under any name."""
    client = start(on_demand=True)
    client.create_collection("c", model="small")
    client.upsert("c", [Document("1", "a cat")])
    client = start(on_demand=True)
    shutil.rmtree(folder / "small")
    shutil.copytree(bundles["wide"].path, folder / "small")
    assert client.embed(TEXTS, model="small").fingerprint == bundles["wide"].manifest.fingerprint
    with pytest.raises(FingerprintMismatchError):
        client.search("c", "a cat")
    shutil.copytree(bundles["small"].path, folder / "small-before")
    assert client.search("c", "a cat").hits[0].score == pytest.approx(1.0, abs=1e-6)
    assert client.embed(TEXTS, model="small-before").model == "small-before"


def test_a_bundle_that_was_replaced_is_served_once_the_old_one_is_unloaded(
    start: Servers, folder: Path, bundles: dict[str, Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a restart, by either client and the command line; models that the settings name stay."""
    client = start(on_demand=True, models="wide")
    client.embed(TEXTS, model="small")
    shutil.rmtree(folder / "small")
    shutil.copytree(bundles["wide"].path, folder / "small")
    assert client.embed(TEXTS, model="small").fingerprint == bundles["small"].manifest.fingerprint
    assert start.running is not None
    address = start.running.address
    command = ["--json", "--server", address, "model", "unload", "small"]
    assert main.run(command) is ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"name": "small", "unloaded": True}
    assert client.embed(TEXTS, model="small").fingerprint == bundles["wide"].manifest.fingerprint

    async def unload() -> bool:
        async with AsyncClient(address) as other:
            return await other.unload_model("small")

    assert (asyncio.run(unload()), client.unload_model("small")) == (True, False)
    for name in ("tiny", "wide"):
        with pytest.raises(ModelStaysLoadedError, match="Restart"):
            client.unload_model(name)
    with pytest.raises(ModelNotServedError, match="nearshore model get none"):
        client.unload_model("none")


def test_a_bundle_that_is_exchanged_while_it_is_loaded_serves_no_collection_of_the_new_one(
    start: Servers, folder: Path
) -> None:
    """What is loaded counts, not what the folder says by now: such a search is refused."""
    client = start(on_demand=True)
    client.create_collection("c", model="wide")
    client.upsert("c", [Document("1", "a cat")])
    client = start(on_demand=True)
    client.embed(TEXTS, model="small")
    shutil.rmtree(folder / "small")
    (folder / "wide").rename(folder / "small")
    with pytest.raises(FingerprintMismatchError) as refused:
        client.search("c", "a cat")
    assert "PRECISION" not in refused.value.remedy  # it is not the precision that differs
    assert start(on_demand=True).search("c", "a cat").hits


def test_of_equal_bundles_a_collections_own_name_is_loaded(start: Servers, folder: Path, gate: Gate) -> None:
    """Else the first by name, and never one whose folder has a name that no request can have."""
    client = start(on_demand=True)
    gate.go_on.release(4)
    client.create_collection("c", model="small")
    for copy in ("Small (copy)", "a-copy", "z-copy"):
        shutil.copytree(folder / "small", folder / copy)
    client = start(on_demand=True)
    client.search("c", "a cat")
    shutil.rmtree(folder / "small")
    client = start(on_demand=True)
    client.search("c", "a cat")
    client.embed(TEXTS, model="z-copy")
    client.search("c", "a cat")
    assert gate.loads == ["small", "small", "a-copy", "z-copy"]


def test_a_server_stops_while_it_loads(start: Servers, gate: Gate) -> None:
    """In order, once the load has ended by itself, which nobody waits for any more."""
    start(on_demand=True)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(start.client(timeout_s=0.3).embed, TEXTS, model="small")
        assert gate.begun.acquire(timeout=PATIENCE_S)
        assert isinstance(answer.exception(), DeadlineError)
    assert start.running is not None
    start.running.ask_to_stop()
    gate.go_on.release()
    assert start.running.stop() is ExitCode.OK


def test_a_model_that_cannot_be_loaded_stops_the_start(start: Servers, folder: Path) -> None:
    """As the default one does: better no server than one that fails when it is asked."""
    (folder / "small" / "model.onnx").write_bytes(b"")
    with pytest.raises(CorruptBundleError, match=r"model\.onnx has changed"):
        start(models="small")


def test_files_are_cut_for_the_collections_own_model(
    start: Servers, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not for the default one, which may take longer texts: nothing would be said of what is lost."""
    make_bundle(folder, "short", max_tokens=16)
    start(models="short").create_collection("c", model="short")
    (tmp_path / "long.txt").write_text("Fish. " * 200, encoding="utf-8")
    assert start.running is not None
    options = ["--json", "--server", start.running.address, "--data-dir", str(tmp_path / "none")]
    assert main.run([*options, "index", str(tmp_path / "long.txt"), "-c", "c"]) is ExitCode.OK
    assert json.loads(capsys.readouterr().out)["truncated"] == 0


def test_collections_of_models_that_are_not_served_are_told_once_the_server_is_ready(
    start: Servers, server_process: Callable[..., ServerProcess], folder: Path
) -> None:
    """In one warning that names some and counts the others; what would be loaded on demand counts as served."""
    unserved = "Collections take no texts, for the model or precision that made them is not served"
    client = start(on_demand=True)
    for collection, model in [*((f"s{n:02}", "small") for n in range(12)), ("t", "tiny"), ("w", "wide")]:
        client.create_collection(collection, model=model)
    client.create_collection("plain", dimensions=4)
    start.stop()
    server = server_process(NEARSHORE_MODEL_DIR=str(folder), NEARSHORE_EMBEDDING__MODELS="wide")
    server.wait_for("Ready")
    told = server.wait_for(unserved)
    assert (told["collections"], told["more"]) == ([f"s{n:02} (small)" for n in range(10)], 2)
    assert all(f"embedding.{setting}" in told["remedy"] for setting in ("precision", "models", "on_demand"))
    server.insist(signal.SIGTERM)
    shutil.rmtree(folder / "wide")
    server = server_process(NEARSHORE_MODEL_DIR=str(folder), NEARSHORE_EMBEDDING__ON_DEMAND="true")
    told = server.wait_for(unserved)
    assert (told["collections"], told["more"]) == (["w (wide)"], 0)
