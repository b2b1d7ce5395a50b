"""`nearshore index` with sizes of passages that cannot be, through a server and without one."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nearshore.cli import main
from nearshore.client import Client, CollectionInfo
from nearshore.errors import CollectionNotFoundError
from nearshore.exit_codes import ExitCode
from tests.servers import InProcessServer, make_settings
from tests.tiny_bert import make_bundle

Index = Callable[..., tuple[int, str]]
TEXT = "the cat sat on the red river. " * 40


@pytest.fixture(params=["server", "folder"])
def index(
    request: pytest.FixtureRequest,
    server: InProcessServer,
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Index:
    """Indexes a text with these options; returns the exit code, and the error's message if there is one."""
    monkeypatch.setenv("NEARSHORE_EMBEDDING__MODEL", "tiny")
    place = ["--server", server.address] if request.param == "server" else []
    (tmp_path / "a.txt").write_text(TEXT)
    options = ["--json", *place, "--data-dir", str(tmp_path / "data"), "--model-dir", str(model_dir)]

    def run(*sizes: str, collection: str = "passage-sizes") -> tuple[int, str]:
        code = main.run([*options, "index", str(tmp_path / "a.txt"), "-c", collection, *sizes])
        told = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
        errors = [each["error"]["message"] for each in told if isinstance(each.get("error"), dict)]
        return code, "".join(errors)

    return run


@pytest.mark.parametrize(
    ("sizes", "named", "remedy"),
    [
        (("--passage-tokens", "63"), "--passage-tokens", "the model takes 62 tokens of a document: give no more"),
        (("--overlap-tokens", "32"), "--overlap-tokens", "here 31 of 62 tokens: give no more"),
        (("--overlap-tokens", "101"), "--overlap-tokens", "here 100 of 200 tokens: give no more"),
        (("--passage-tokens", "20", "--overlap-tokens", "11"), "--overlap-tokens", "here 10 of 20 tokens"),
    ],
)
def test_what_cannot_be_is_refused(index: Index, sizes: Sequence[str], named: str, remedy: str) -> None:
    """Passages of another size than the command line says are not made: the refusal names option and maximum."""
    code, message = index(*sizes)
    assert code == ExitCode.USAGE
    assert named in message
    assert remedy in message


def test_a_refused_run_makes_no_collection(server: InProcessServer, index: Index) -> None:
    """What the model's maximum refuses is refused before anything is made."""
    assert index("--passage-tokens", "63", collection="refused")[0] == ExitCode.USAGE
    with Client(server.address) as client, pytest.raises(CollectionNotFoundError):
        client.get_collection("refused")


def test_a_collection_without_a_model_is_refused_before_sizes_are(
    server: InProcessServer, start_server: Callable[..., InProcessServer], index: Index, collection_id: str
) -> None:
    """Who mended the sizes first would be told only then that it was in vain."""
    before = start_server()
    for each in (server, before):
        with Client(each.address) as client:
            client.create_collection(collection_id, dimensions=2)
    before.stop()
    code, message = index("--passage-tokens", "63", collection=collection_id)
    assert code == ExitCode.FAILED
    assert "has no model" in message


def test_passages_fit_the_model_of_who_made_the_collection_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are cut for the model that the collection has, not for the one that it was to be made with."""
    make_bundle(tmp_path / "models", "short", max_tokens=16)
    make_bundle(tmp_path / "models")
    create = Client.create_collection

    def beaten(client: Client, name: str, *, model: str) -> CollectionInfo:
        create(client, name, model="short")
        return create(client, name, model=model)

    monkeypatch.setattr(Client, "create_collection", beaten)
    (tmp_path / "a.txt").write_text(TEXT)
    server = InProcessServer(make_settings(tmp_path / "data", tmp_path / "models", embedding__models="short"))
    try:
        command = ["--json", "--server", server.address, "index", str(tmp_path / "a.txt"), "-c", "notes"]
        assert main.run(command) == ExitCode.OK
    finally:
        server.stop()
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["embedded"] > 1
    assert outcome["truncated"] == 0


@pytest.mark.parametrize("sizes", ["", "--passage-tokens 20", "--passage-tokens 62 --overlap-tokens 31"])
def test_what_can_be_and_what_is_not_said_is_fitted(index: Index, sizes: str) -> None:
    """The greatest sizes are taken; a default gives way to the model, and to a passage that is shorter than usual."""
    assert index(*sizes.split()) == (ExitCode.OK, "")
