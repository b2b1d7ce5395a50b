"""What config_sentence_transformers.json says becomes the prompts that are put before queries and documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearshore.embedding import Embedder
from nearshore.embedding.prompts import Prompts
from tests.tiny_bert import make_bundle


@pytest.mark.parametrize(
    ("texts", "default", "query", "document"),
    [
        ({"query": "q: ", "document": ""}, "query", "q: ", ""),
        ({"query": "", "document": "d: "}, "document", "", "d: "),
        ({"query": "q: ", "document": "", "passage": "p: "}, None, "q: ", ""),
        ({"query": "q: ", "passage": ""}, "query", "q: ", ""),
        ({"query": "q: ", "corpus": ""}, "query", "q: ", ""),
        ({"query": "q: ", "document": ""}, "document", "q: ", ""),
        ({"query": "q: ", "other": ""}, "query", "q: ", "q: "),
    ],
)
def test_an_empty_prompt_of_a_use_is_none(
    tmp_path: Path, texts: dict[str, str], default: str | None, query: str, document: str
) -> None:
    """As in sentence-transformers, which looks whether there is such a name and not whether its prompt is empty."""
    bundle = make_bundle(tmp_path, sentences={"prompts": texts, "default_prompt_name": default})
    prompts = Prompts(bundle.manifest)
    assert (prompts.query, prompts.document) == (query, document)
    assert prompts.named(None) == (texts[default] if default else "")
    for name in bundle.manifest.prompts:
        assert prompts.named(name) == texts[name]


def test_documents_without_a_prompt_have_all_room(tmp_path: Path) -> None:
    """Whatever the default is: of 64 tokens, 2 are special."""
    bundle = make_bundle(
        tmp_path, sentences={"prompts": {"query": "q: ", "document": ""}, "default_prompt_name": "query"}
    )
    with Embedder.open(bundle, workers=1, max_run_tokens=128, max_queued_tokens=1000) as embedder:
        assert embedder.max_document_tokens == 62
