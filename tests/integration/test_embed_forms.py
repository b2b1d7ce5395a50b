"""What Embed may be asked of vectors, through a real server, by both clients and the command."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearshore.cli import main
from nearshore.client import AsyncClient, Client, Document, Query
from nearshore.documents.errors import DimensionsError, FingerprintMismatchError
from nearshore.exit_codes import ExitCode
from tests.servers import InProcessServer

TEXTS = ["red bird", "a cat in the city", ""]


def test_vectors_have_the_dimensions_asked_for(client: Client, server: InProcessServer) -> None:
    """Both clients get the first components, of unit length; none asked for are all."""
    whole, cut = client.embed(TEXTS), client.embed(TEXTS, dimensions=8)
    assert cut.vectors.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(cut.vectors, axis=1), 1, atol=1e-6)
    first = whole.vectors[:, :8]
    np.testing.assert_allclose(cut.vectors, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)
    assert client.embed(TEXTS, dimensions=0).vectors.tobytes() == whole.vectors.tobytes()

    async def ask() -> bytes:
        async with AsyncClient(server.address) as asking:
            return (await asking.embed(TEXTS, dimensions=8)).vectors.tobytes()

    assert asyncio.run(ask()) == cut.vectors.tobytes()


def test_vectors_have_the_length_asked_for(client: Client, server: InProcessServer) -> None:
    """Both clients get vectors as the model made them, or of unit length, which is what this bundle says."""
    unit, raw = client.embed(TEXTS), client.embed(TEXTS, normalize=False)
    lengths = np.linalg.norm(raw.vectors, axis=1, keepdims=True)
    assert (abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(raw.vectors / lengths, unit.vectors, atol=1e-6)
    same = client.embed(TEXTS, normalize=True)
    assert (same.vectors.tobytes(), same.fingerprint) == (unit.vectors.tobytes(), unit.fingerprint)

    async def ask() -> tuple[bytes, str]:
        async with AsyncClient(server.address) as asking:
            answer = await asking.embed(TEXTS, normalize=False)
            return answer.vectors.tobytes(), answer.fingerprint

    assert asyncio.run(ask()) == (raw.vectors.tobytes(), raw.fingerprint)


def test_impossible_dimensions_are_refused(client: Client) -> None:
    """The refusal names the field, the value and the limit, for people and for programs."""
    for value in (33, -1):
        with pytest.raises(
            DimensionsError, match=rf"dimensions is {value}; .*'tiny' have 32\. Ask for 1 to 32"
        ) as told:
            client.embed(TEXTS, dimensions=value)
        assert told.value.reason == "DIMENSIONS_OUT_OF_RANGE"
        expected = {"field": "dimensions", "value": str(value), "limit": "32"}
        assert expected.items() <= told.value.metadata.items()


def test_a_collection_never_mixes_forms(client: Client, collection_id: str) -> None:
    """One of the bundle's vectors refuses others, written and searched with; one without a model takes them."""
    cut, raw = client.embed(TEXTS[:2], dimensions=8), client.embed(TEXTS[:2], normalize=False)
    documents = [Document("1", TEXTS[0]), Document("2", TEXTS[1])]
    client.create_collection(collection_id, model="tiny")
    with pytest.raises(FingerprintMismatchError):
        client.upsert(collection_id, documents, vectors=np.tile(cut.vectors, 4), fingerprint=cut.fingerprint)
    with pytest.raises(FingerprintMismatchError):
        client.search(collection_id, Query(vector=np.tile(cut.vectors[0], 4), fingerprint=cut.fingerprint))
    with pytest.raises(FingerprintMismatchError):
        client.upsert(collection_id, documents, vectors=raw.vectors, fingerprint=raw.fingerprint)
    client.create_collection(f"{collection_id}-cut", dimensions=8)
    client.upsert(f"{collection_id}-cut", documents, vectors=cut.vectors)
    (hit, _) = client.search(f"{collection_id}-cut", Query(vector=cut.vectors[1])).hits
    assert hit.document.id == "2"


def test_starts_are_cut_if_asked(client: Client, server: InProcessServer) -> None:
    """Both clients get the vector of what fits of a long text's end, and are told how much that was."""
    texts = ["red bird", "fish " * 40 + "cat " * 62]
    cut = client.embed(texts, truncation="cut_start")
    assert cut.vectors.tobytes() == client.embed(["red bird", "cat " * 62], truncation="refuse").vectors.tobytes()
    assert (list(cut.tokens), list(cut.tokens_used)) == ([4, 104], [4, 64])
    assert cut.fingerprint == client.embed(texts).fingerprint

    async def ask() -> bytes:
        async with AsyncClient(server.address) as asking:
            return (await asking.embed(texts, truncation="cut_start")).vectors.tobytes()

    assert asyncio.run(ask()) == cut.vectors.tobytes()


def test_the_command_asks_for_the_same(
    client: Client,
    server: InProcessServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`embed` gives the client's bits, and an empty file of the right width where there are no texts."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        options = ["--json", "--server", server.address, "--data-dir", str(tmp_path / "none")]
        assert main.run([*options, "embed", *arguments]) == ExitCode.OK
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (answer,) = run(TEXTS[0], "--dimensions", "8")
    expected = client.embed(TEXTS[:1], dimensions=8)
    np.testing.assert_array_equal(np.array([answer["vector"]], np.float32), expected.vectors)
    assert answer["fingerprint"] == expected.fingerprint
    (answer,) = run(TEXTS[0], "--no-normalize")
    expected = client.embed(TEXTS[:1], normalize=False)
    np.testing.assert_array_equal(np.array([answer["vector"]], np.float32), expected.vectors)
    assert run(TEXTS[0], "--normalize") == run(TEXTS[0])
    long = "fish " * 40 + "cat " * 62
    (answer,) = run(long, "--cut-start")
    assert answer == {**run("cat " * 62)[0], "text": long, "tokens": 104}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    (told,) = run("--dimensions", "8", "--npy", str(tmp_path / "e.npy"))
    assert (told["rows"], told["dimensions"]) == (0, 8)
    assert main.run(["--server", server.address, "embed", long, "--dimensions", str(2**31)]) == ExitCode.USAGE
    assert main.run(["--server", server.address, "embed", long, "--cut-start", "--refuse-long"]) == ExitCode.USAGE
