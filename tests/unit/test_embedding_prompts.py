"""A prompt is put before a text, and is part of it from then on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearshore.embedding import Embedder, Truncation
from nearshore.embedding.errors import TextTooLongError, UnknownPromptError
from nearshore.embedding.prompts import Prompts
from tests.tiny_bert import make_bundle
from tests.unit.test_bundle import MANIFEST

E5 = {"query": "query: ", "passage": "on file: "}
TEXTS = ["red fish", "", "a cat in the city"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    bundle = make_bundle(tmp_path_factory.mktemp("models"), sentences={"prompts": E5})
    with Embedder.open(bundle, workers=2, max_run_tokens=128, max_queued_tokens=100_000) as opened:
        yield opened


def prompts_of(texts: dict[str, str], default: str | None = None) -> Prompts:
    return Prompts(MANIFEST.model_copy(update={"prompts": texts, "default_prompt": default}))


@pytest.mark.parametrize(
    ("texts", "default", "query", "document"),
    [
        ({}, None, "", ""),
        ({"query": "q: ", "document": "d: "}, None, "q: ", "d: "),
        ({"passage": "p: ", "corpus": "c: "}, None, "", "p: "),
        ({"corpus": "c: ", "document": "d: "}, None, "", "d: "),
        ({"other": "o: ", "query": "q: "}, "other", "q: ", "o: "),
        ({"query": "q: "}, "query", "q: ", "q: "),
        ({"query": "q: ", "document": ""}, "query", "q: ", ""),
        ({"query": "", "document": "d: "}, "document", "", "d: "),
        ({"query": "q: ", "document": "", "passage": "p: "}, None, "q: ", ""),
    ],
)
def test_uses_are_found_as_sentence_transformers_finds_them(
    texts: dict[str, str], default: str | None, query: str, document: str
) -> None:
    """As encode_query and encode_document: by their names, then the default, then nothing."""
    prompts = prompts_of(texts, default)
    assert (prompts.query, prompts.document) == (query, document)


def test_a_prompt_is_named_or_the_default() -> None:
    """None is the default, an empty name is no prompt, and a name that is not known is told with those that are."""
    prompts = prompts_of({"query": "q: ", "other": "o: "}, "other")
    assert (prompts.named("query"), prompts.named(None), prompts.named("")) == ("q: ", "o: ", "")
    assert prompts_of({}).named(None) == ""
    with pytest.raises(UnknownPromptError, match=r"no prompt 'queri'.*It has other, query") as caught:
        prompts.named("queri")
    assert (caught.value.reason, caught.value.metadata["known"]) == ("PROMPT_UNKNOWN", "other,query")
    with pytest.raises(UnknownPromptError, match="It has none: leave prompt out"):
        prompts_of({}).named("query")


def test_a_prompted_text_is_the_two_together(embedder: Embedder) -> None:
    """Vectors, bit for bit, and counts are those of prompt and text written one after the other."""
    prompted = embedder.embed(TEXTS, prompt="query: ")
    written = embedder.embed([f"query: {text}" for text in TEXTS])
    np.testing.assert_array_equal(prompted.vectors, written.vectors)
    assert (prompted.tokens, prompted.fingerprint) == (written.tokens, embedder.fingerprint())
    assert prompted.tokens == [count + 2 for count in embedder.embed(TEXTS).tokens]
    assert not np.array_equal(prompted.vectors, embedder.embed(TEXTS).vectors)


def test_a_query_has_its_prompt(embedder: Embedder) -> None:
    """What is submitted to be searched is embedded as a query."""
    answer = embedder.submit_query("red fish", lambda embeddings: embeddings).result()
    np.testing.assert_array_equal(answer.vectors, embedder.embed(["query: red fish"]).vectors)
    assert answer.tokens == [6]


def test_the_prompt_counts_against_the_maximum(embedder: Embedder) -> None:
    """A text that fills the model alone is cut behind a prompt, or refused; the prompt is never what is cut."""
    text = "fish " * 62
    assert embedder.embed([text], truncation=Truncation.REFUSE).tokens_used == [64]
    prompted = embedder.embed([text], prompt="query: ")
    assert (prompted.tokens, prompted.tokens_used) == ([66], [64])
    np.testing.assert_array_equal(prompted.vectors, embedder.embed(["query: " + "fish " * 60]).vectors)
    with pytest.raises(TextTooLongError, match="66 tokens"):
        embedder.embed([text], prompt="query: ", truncation=Truncation.REFUSE)


@pytest.mark.parametrize(("prompt", "room"), [("query: ", 60), ("on file: ", 59), ("", 62)])
def test_a_start_is_cut_behind_the_prompt(embedder: Embedder, prompt: str, room: int) -> None:
    """The prompt stays whole and the last words fill the rest."""
    words = ["red", "green", "blue", "cat", "dog", "bird"] * 15
    cut = embedder.embed([" ".join(words)], prompt=prompt, truncation=Truncation.CUT_START)
    left = embedder.embed([" ".join(words[-room:])], prompt=prompt, truncation=Truncation.REFUSE)
    assert cut.vectors.tobytes() == left.vectors.tobytes()
    assert (cut.tokens, cut.tokens_used) == ([len(words) + 64 - room], [64])


def test_documents_have_what_their_prompt_leaves(embedder: Embedder, tmp_path: Path) -> None:
    """The passages that an indexer cuts fit behind the prompt: of 64 tokens, 2 are special and 3 the prompt's."""
    assert embedder.max_document_tokens == 59
    with Embedder.open(make_bundle(tmp_path), workers=1, max_run_tokens=128, max_queued_tokens=1000) as plain:
        assert plain.max_document_tokens == 62
