"""Cross-encoders in one real server, beside embedding models."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nearshore.bundle import load_bundle, write_manifest
from nearshore.cli import main
from nearshore.client import NO_RETRIES, AsyncClient, Document, RankedText
from nearshore.documents.errors import EmptyTextError, FingerprintMismatchError
from nearshore.embedding.errors import CrossEncoderError, NotCrossEncoderError, TextTooLongError
from nearshore.exit_codes import ExitCode
from tests import tiny_bert
from tests.numpy_bert import F64
from tests.servers import InProcessServer
from tests.tiny_cross_encoder import PASSAGES, QUERY, export, make_bundle, make_checkpoint, reference_logits, sigmoid

PAIRS = [(QUERY, text) for text in PASSAGES]
IDENTITY = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
Start = Callable[..., InProcessServer]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding model that has 8 bits too, cross-encoders of two kinds, and a classifier, once as of old."""
    folder = tmp_path_factory.mktemp("models")
    tiny_bert.make_bundle(folder, int8=True)
    make_bundle(folder, "judge")
    make_bundle(folder, "plain", "roberta", **IDENTITY)
    sure = make_checkpoint(folder / ".sure.checkpoint")
    tensors = load_file(sure / "model.safetensors")
    save_file(tensors | {"classifier.bias": tensors["classifier.bias"] + 30}, sure / "model.safetensors")
    export(sure, folder / "sure")
    sorter = make_bundle(folder, "sorter", labels=3)
    shutil.copytree(sorter.path, folder / "before")
    write_manifest(folder / "before", sorter.manifest.model_copy(update={"classifier": None}))
    return folder


def check_scores(results: Sequence[RankedText], expected: F64) -> None:
    """Each text has its own; expected: of all, as they were sent."""
    found = [each.score for each in results]
    np.testing.assert_allclose(found, [expected[each.index] for each in results], atol=2e-5)


def test_texts_come_back_best_first(start_server: Start) -> None:
    """With the scores of the network and its activation, equal ones in the order in which they were sent."""
    with start_server(embedding__models="judge").client() as client:
        logits = reference_logits(PAIRS)
        answer = client.rerank(QUERY, PASSAGES, model="judge")
        assert answer.model == "judge"
        assert [each.name for each in client.list_models() if each.is_cross_encoder] == ["judge"]
        order = [each.index for each in answer.results]
        assert order == sorted(range(len(PASSAGES)), key=lambda index: (-round(float(logits[index]), 5), index))
        np.testing.assert_allclose([each.score for each in answer.results], sigmoid(logits)[order], atol=2e-5)
        np.testing.assert_allclose([each.logit for each in answer.results], logits[order], atol=2e-5)
        assert answer.tokens == answer.tokens_used
        assert client.rerank(QUERY, PASSAGES, model="judge", limit=2).results == answer.results[:2]
        assert client.rerank(QUERY, PASSAGES, model="judge", limit=99).results == answer.results


def test_a_score_does_not_depend_on_its_company(start_server: Start) -> None:
    """The bits of each text are those that it has alone, while others rerank and embed, and whatever the model."""
    server = start_server(embedding__models="judge,plain", embedding__cache_bytes=1 << 20)
    with server.client() as client, ThreadPoolExecutor(8) as pool:

        def ask(number: int) -> dict[tuple[str, str], float]:
            model = ("judge", "plain")[number % 2]
            texts = [*PASSAGES[number % 3 :], *tiny_bert.corpus(40)[: number * 3]]
            client.embed(texts[:5])
            results = client.rerank(QUERY, texts, model=model).results
            return {(model, texts[each.index]): each.score for each in results}

        answers = list(pool.map(ask, range(12)))
        for answer in answers:
            for (model, text), score in answer.items():
                alone = client.rerank(QUERY, [text], model=model).results[0].score
                assert np.float32(alone).tobytes() == np.float32(score).tobytes()


def test_a_model_is_asked_only_for_what_it_can_do(start_server: Start) -> None:
    """Every other use is refused, and the remedy names what would do."""
    with start_server(embedding__models="judge,sorter,before").client() as client:
        for refused in (
            lambda: client.embed(["a cat"], model="judge"),
            lambda: client.tokenize(["a cat"], model="judge"),
            lambda: client.create_collection("c", model="judge"),
            lambda: next(client.embed_stream([["a cat"]], model="judge")).result(),
        ):
            with pytest.raises(CrossEncoderError, match=r"'judge' is a cross-encoder.*Name an embedding model"):
                refused()
        with pytest.raises(NotCrossEncoderError, match=r"'tiny' .*an embedding model.* that is one: judge\."):
            client.rerank(QUERY, PASSAGES)
        with pytest.raises(NotCrossEncoderError, match="it is a classifier of 3 labels"):
            client.rerank(QUERY, PASSAGES, model="sorter")
        with pytest.raises(NotCrossEncoderError, match=r"from before.*nearshore model get before --force"):
            client.rerank(QUERY, PASSAGES, model="before")
        assert client.embed(["a cat"], model="sorter").vectors.shape == (1, 32)
        client.create_collection("c", model="tiny")
        client.upsert("c", [Document("1", "a cat")])


def test_a_cross_encoder_is_loaded_when_it_is_asked_for(start_server: Start) -> None:
    """Those in the model folder are named, too, where they can be loaded; a model without activation gives logits."""
    with start_server(embedding__on_demand=True).client() as client:
        with pytest.raises(NotCrossEncoderError, match=r"that is one: judge, plain, sure\.") as caught:
            client.rerank(QUERY, PASSAGES)
        for named in caught.value.metadata["known"].split(","):
            assert client.rerank(QUERY, PASSAGES, model=named).model == named  # as the advice has it
        results = client.rerank(QUERY, PASSAGES, model="plain").results
        expected = reference_logits(PAIRS, "roberta")
        np.testing.assert_allclose(
            [each.score for each in results], [expected[each.index] for each in results], atol=2e-5
        )


def test_a_model_of_the_wrong_kind_is_refused_before_it_is_loaded(start_server: Start, model_dir: Path) -> None:
    """None makes room for a model that is of no use to the call."""
    room = sum(load_bundle(model_dir / name).size_bytes for name in ("tiny", "judge")) + 1_000
    with start_server(embedding__on_demand=True, embedding__max_model_bytes=room).client() as client:
        client.rerank(QUERY, PASSAGES, model="judge")
        with pytest.raises(CrossEncoderError):
            client.embed(["a cat"], model="plain")
        with pytest.raises(NotCrossEncoderError):
            client.rerank(QUERY, PASSAGES, model="sorter")
        assert [each.name for each in client.list_models() if each.loaded] == ["judge", "tiny"]


def test_it_may_be_the_default_model(start_server: Start) -> None:
    """Of a server that does nothing else; then no request has to name it, and texts are embedded by name."""
    server = start_server(embedding__model="judge", embedding__models="tiny")
    with server.client() as client:
        assert client.rerank(QUERY, PASSAGES).model == "judge"
        assert client.embed(["a cat"], model="tiny").model == "tiny"
        with pytest.raises(CrossEncoderError):
            client.embed(["a cat"])
    assert server.stop() is ExitCode.OK


@pytest.mark.parametrize("settings", [{"embedding__models": "judge"}, {"embedding__on_demand": True}])
def test_a_server_of_8_bits_reranks_in_float32(start_server: Start, settings: dict[str, object]) -> None:
    """Its embedding models are run in 8 bits, its cross-encoders as they are."""
    with start_server(embedding__precision="int8", **settings).client() as client:
        results = client.rerank(QUERY, PASSAGES, model="judge").results
        expected = reference_logits(PAIRS)
        np.testing.assert_allclose(
            [each.logit for each in results], [expected[each.index] for each in results], atol=2e-5
        )
        client.create_collection("c", model="tiny")
        assert client.get_collection("c").precision == "int8"


@pytest.mark.parametrize(
    ("settings", "loaded", "remedy"),
    [
        ({"embedding__precision": "int8", "embedding__models": "judge"}, "loaded is tiny in int8", "PRECISION=fp32"),
        ({"embedding__model": "judge"}, "loaded is no embedding model", "Serve the model it was made with"),
    ],
)
def test_a_cross_encoder_is_no_model_of_a_collection(
    start_server: Start, settings: dict[str, object], loaded: str, remedy: str
) -> None:
    """What is said of a collection whose model is missing looks at embedding models alone."""
    server = start_server()
    with server.client() as client:
        client.create_collection("c", model="tiny")
    server.stop()
    with start_server(**settings).client() as client, pytest.raises(FingerprintMismatchError) as refused:
        client.search("c", "a cat")
    assert loaded in str(refused.value)
    assert remedy in refused.value.remedy


def test_pairs_that_are_too_long_are_cut_or_refused(start_server: Start) -> None:
    """As asked; a query of nothing that the model reads is refused, whatever its length."""
    with start_server(embedding__models="judge").client() as client:
        long = "fish " * 100
        cut = client.rerank(long, [long, "a"], model="judge")
        assert (cut.tokens, cut.tokens_used) == ([203, 104], [64, 64])
        start = client.rerank(QUERY, [f"{long} music"], model="judge", truncation="cut_start")
        assert start.results != client.rerank(QUERY, [f"{long} music"], model="judge").results
        with pytest.raises(TextTooLongError, match="Text 1 has 110 tokens with the query"):
            client.rerank(QUERY, ["a", long], model="judge", truncation="refuse")
        with pytest.raises(EmptyTextError, match="query has no characters that the model reads"):
            client.rerank("\u200b", ["a"], model="judge")


@pytest.fixture
def command(start_server: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A function that runs a command on a server that has judge, and returns exit code and standard output."""
    address = start_server(embedding__models="judge,sure").address

    def run(*arguments: str) -> tuple[int, str]:
        code = main.run(["--server", address, "--data-dir", str(tmp_path / "none"), *arguments])
        return code, capsys.readouterr().out

    return run


def test_the_command_sorts_texts_and_lines(
    command: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many calls they take, and from wherever they come: as one call would."""
    lines = tiny_bert.corpus(300)
    logits = reference_logits([(QUERY, line) for line in lines])
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    asked = ["--json", "rerank", QUERY, "--model", "judge"]
    code, told = command(*asked, "--file", str(tmp_path / "lines.txt"), "--limit", "20")
    found = [json.loads(line) for line in told.splitlines()]
    assert (code, len(found)) == (ExitCode.OK, 20)
    assert [each["logit"] for each in found] == sorted((each["logit"] for each in found), reverse=True)
    np.testing.assert_allclose([each["logit"] for each in found], np.sort(logits)[::-1][:20], atol=2e-5)
    np.testing.assert_allclose([each["score"] for each in found], sigmoid(np.sort(logits))[::-1][:20], atol=2e-5)
    assert [each["text"] for each in found] == [lines[each["index"]] for each in found]
    with (tmp_path / "lines.txt").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert command(*asked, "--limit", "20") == (code, told)
    code, told = command("rerank", QUERY, *PASSAGES, "--model", "judge", "--limit", "1")
    best = int(np.argmax(reference_logits(PAIRS)))
    assert code == ExitCode.OK
    assert told.split()[:4] == ["score", "logit", "index", "text"]
    assert told.split()[6:] == [str(best), *PASSAGES[best].split()]


def test_the_command_sorts_by_logits(command: Callable[..., tuple[int, str]]) -> None:
    """Of a model that is sure of everything all scores are 1 in float32, and the order is there all the same."""
    lines = tiny_bert.corpus(40)
    code, told = command("--json", "rerank", QUERY, *lines, "--model", "sure")
    found = [json.loads(line) for line in told.splitlines()]
    assert code == ExitCode.OK
    assert {each["score"] for each in found} == {1.0}
    logits = reference_logits([(QUERY, line) for line in lines])
    np.testing.assert_allclose(logits[[each["index"] for each in found]], np.sort(logits)[::-1], atol=2e-5)


def test_the_command_refuses_what_makes_no_sense(command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """As usage, or with the server's own words."""
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9\n")
    assert command("rerank", "a", "b", "--file", str(tmp_path / "bad.txt"))[0] == ExitCode.USAGE
    assert command("rerank", "a", "b", "--cut-start", "--refuse-long")[0] == ExitCode.USAGE
    assert command("rerank", "a", "--file", str(tmp_path / "none.txt"))[0] == ExitCode.USAGE
    assert command("rerank", "a", "--file", str(tmp_path / "bad.txt"))[0] != ExitCode.OK
    assert command("rerank", "a", "b")[0] == ExitCode.FAILED  # tiny is no cross-encoder


def test_models_are_told_apart(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By `model show` and `model list`, for people and for programs."""
    folder = ["--model-dir", str(model_dir)]
    told = {}
    for name in ("judge", "plain", "sorter", "tiny"):
        assert main.run([*folder, "model", "show", name]) == ExitCode.OK
        told[name] = capsys.readouterr().out
    assert "sigmoid, between 0 and 1" in told["judge"]
    assert "the logit as it is" in told["plain"]
    assert all("dimensions" not in told[name] for name in ("judge", "plain"))
    assert all("cross-encoder" not in told[name] for name in ("sorter", "tiny"))
    assert "3, scored by logits" in told["sorter"]
    assert main.run([*folder, "model", "list"]) == ExitCode.OK
    assert capsys.readouterr().out.count("cross-encoder") == 3
    assert main.run([*folder, "--json", "model", "show", "judge"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["classifier"] == {"labels": 1, "activation": "sigmoid"}


def test_asyncio_has_the_same_method(start_server: Start) -> None:
    """And gives the same."""
    server = start_server(embedding__models="judge")
    with server.client() as client:
        expected = client.rerank(QUERY, PASSAGES, model="judge", limit=3)

    async def ask() -> object:
        async with AsyncClient(server.address, retries=NO_RETRIES) as asking:
            return await asking.rerank(QUERY, PASSAGES, model="judge", limit=3)

    assert asyncio.run(ask()) == expected
