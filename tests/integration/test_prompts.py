"""A model with prompts, through a real server: queries and documents get theirs, Embed what it asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearshore.cli import main
from nearshore.client import Client, Document, Parts, Query
from nearshore.documents.errors import EmptyTextError
from nearshore.embedding.errors import TextTooLongError, UnknownPromptError
from nearshore.exit_codes import ExitCode
from tests.servers import InProcessServer, make_settings
from tests.tiny_bert import make_bundle

PROMPTS = {"query": "query: ", "passage": "on file: ", "glue": "c"}
DOCUMENTS = [Document("1", "red bird", title="birds"), Document("2", "a cat in the city")]


@pytest.fixture(scope="module")
def prompted_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    models = tmp_path_factory.mktemp("models")
    make_bundle(models, sentences={"prompts": PROMPTS})
    running = InProcessServer(make_settings(tmp_path_factory.mktemp("data"), models))
    yield running
    running.stop()


@pytest.fixture
def prompted(prompted_server: InProcessServer, collection_id: str) -> Iterator[Client]:
    with Client(prompted_server.address) as client:
        client.create_collection(collection_id, model="tiny")
        yield client


def test_documents_are_embedded_behind_their_prompt(prompted: Client, collection_id: str) -> None:
    """The title stands between prompt and text; what is answered about the document knows nothing of the prompt."""
    prompted.upsert(collection_id, DOCUMENTS)
    found = prompted.get(collection_id, ["1", "2"], parts=Parts(vector=True))
    assert found.documents == DOCUMENTS
    assert found.vectors is not None
    texts = [each.embedded_text for each in DOCUMENTS]
    np.testing.assert_array_equal(found.vectors, prompted.embed(texts, prompt="passage").vectors)
    written = prompted.embed([f"on file: {text}" for text in texts], prompt="")
    np.testing.assert_array_equal(found.vectors, written.vectors)


def test_queries_are_embedded_behind_theirs(prompted: Client, collection_id: str) -> None:
    """One text, several at once, and the vector that Embed gives for the prompt find the same at the same distance."""
    written = prompted.upsert(collection_id, DOCUMENTS)
    assert written.embedded_count == 2
    vector = prompted.embed(["a bird"], prompt="query")
    alone = prompted.search(collection_id, "a bird")
    by_vector = prompted.search(collection_id, Query(vector=vector.vectors[0], fingerprint=vector.fingerprint))
    together = prompted.batch_search(collection_id, ["a bird", "a cat"])[0]
    expected = [(hit.document.id, hit.score) for hit in by_vector.hits]
    assert [(hit.document.id, hit.score) for hit in alone.hits] == expected
    assert [(hit.document.id, hit.score) for hit in together.hits] == expected
    unprompted = prompted.embed(["a bird"])
    assert not np.array_equal(unprompted.vectors, vector.vectors)


def test_an_unknown_prompt_is_told_with_those_there_are(prompted: Client) -> None:
    """By Embed and by Tokenize alike."""
    for call in (prompted.embed, prompted.tokenize):
        with pytest.raises(UnknownPromptError, match=r"no prompt 'document'.*It has glue, passage, query"):
            call(["a bird"], prompt="document")


def test_tokens_are_shown_as_they_are_embedded(prompted: Client) -> None:
    """Tokenize shows the prompt's tokens, and what is left for a document."""
    answer = prompted.tokenize(["bird"], prompt="query")
    assert list(answer.texts[0].tokens) == ["[CLS]", "query", ":", "bird", "[SEP]"]
    assert list(prompted.tokenize(["bird"]).texts[0].tokens) == ["[CLS]", "bird", "[SEP]"]
    assert (answer.max_tokens, answer.max_document_tokens) == (64, 59)


def test_a_text_without_words_is_empty_behind_a_prompt_too(prompted: Client, collection_id: str) -> None:
    """Zero-width characters are refused, as documents and as queries."""
    with pytest.raises(EmptyTextError, match=r"documents\[1\]"):
        prompted.upsert(collection_id, [DOCUMENTS[0], Document("3", "\u200b\u200b")])
    for ask in (prompted.search, lambda name, text: prompted.batch_search(name, [text, "a bird"])):
        with pytest.raises(EmptyTextError):
            ask(collection_id, "\u200b")


def test_a_text_that_was_cut_is_refused_if_asked(prompted: Client, collection_id: str) -> None:
    """Also where only the prompt makes it too long, and where its vector is known from an upsert that cut it."""
    document = Document("4", "fish " * 60)
    assert prompted.upsert(collection_id, [document]).truncated_indexes == (0,)
    with pytest.raises(TextTooLongError, match="65 tokens"):
        prompted.upsert(collection_id, [document], truncation="refuse")


def test_commands_know_prompts(
    prompted: Client,
    prompted_server: InProcessServer,
    collection_id: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`embed --prompt` puts one before its texts; passages that `index` cuts fit behind that of documents."""

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        options = ["--json", "--server", prompted_server.address, "--data-dir", str(tmp_path / "none")]
        code = main.run([*options, *arguments])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    code, (answer,) = run("embed", "red fish", "--prompt", "query")
    assert (code, answer["tokens"]) == (ExitCode.OK, 6)
    np.testing.assert_array_equal(np.array([answer["vector"]], np.float32), prompted.embed(["query: red fish"]).vectors)
    assert run("embed", "red fish", "--prompt", "qwery") == (ExitCode.USAGE, [])
    (tmp_path / "long.txt").write_text("Fish. " * 200, encoding="utf-8")
    code, (figures,) = run("index", str(tmp_path / "long.txt"), "-c", collection_id)
    assert (code, figures["truncated"]) == (ExitCode.OK, 0)
    assert figures["documents"] > 6


@pytest.mark.parametrize("default", ["glue", None])
def test_a_default_prompt_is_put_before_what_has_no_other(
    tmp_path: Path, collection_id: str, default: str | None
) -> None:
    """A word that becomes one token with its prompt is not taken for an empty text."""
    make_bundle(tmp_path / "models", sentences={"prompts": {"glue": "c"}, "default_prompt_name": default})
    running = InProcessServer(make_settings(tmp_path / "data", tmp_path / "models"))
    try:
        with Client(running.address) as client:
            client.create_collection(collection_id, model="tiny")
            client.upsert(collection_id, [Document("1", "at"), Document("2", "red fish")])
            (hit, *_) = client.search(collection_id, "at").hits
            assert hit.document.id == "1"
            (shown,) = client.tokenize(["at"]).texts
            assert list(shown.tokens) == ["[CLS]", "cat" if default else "at", "[SEP]"]
            same = client.embed(["at"]).vectors == client.embed(["at"], prompt="").vectors
            assert same.all() == (default is None)
    finally:
        running.stop()
