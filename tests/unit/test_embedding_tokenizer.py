"""Text to token ids, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nearshore.bundle import Bundle, CorruptBundleError, SpecialTokens
from nearshore.embedding.tokenizer import Tokenizer
from tests.tiny_bert import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("models"))


def tokenizer_of(bundle: Bundle, special: SpecialTokens = SpecialTokens.TEXT, *, max_tokens: int = 10) -> Tokenizer:
    return Tokenizer(bundle.tokenizer_path, max_tokens=max_tokens, special=special)


def test_an_empty_text_is_the_two_special_tokens(bundle: Bundle) -> None:
    """Nothing to read is [CLS][SEP], as in the reference."""
    tokenizer = tokenizer_of(bundle)
    (tokens,) = tokenizer.encode([""])
    assert tokenizer.spell(tokens.used_ids) == ["[CLS]", "[SEP]"]
    assert tokens.tokens_used == 2


def test_nothing_is_inherited_from_the_tokenizer_file(bundle: Bundle) -> None:
    """The file pads and truncates to 16 tokens, and for the library that is gone; only max_tokens holds."""
    text = "cat dog " * 20
    tokenizer = tokenizer_of(bundle, max_tokens=30)
    short, long = tokenizer.encode(["cat", text])
    assert (len(short.ids), short.tokens_used) == (3, 3)
    assert (len(long.ids), long.tokens_used) == (42, 30)


def test_cutting_keeps_the_closing_token(bundle: Bundle) -> None:
    """An over-long text loses the end of its content, not its [SEP], and its full count is told."""
    tokenizer = tokenizer_of(bundle, max_tokens=5)
    (tokens,) = tokenizer.encode(["cat dog bird fish tree"])
    assert tokenizer.spell(tokens.used_ids) == ["[CLS]", "cat", "dog", "bird", "[SEP]"]
    assert len(tokens.ids) == 7


def test_a_text_that_just_fits_is_whole(bundle: Bundle) -> None:
    """max_tokens includes the special tokens and is itself allowed."""
    (tokens,) = tokenizer_of(bundle, max_tokens=5).encode(["cat dog bird"])
    assert tokens.used_ids == tokens.ids


def test_text_cannot_forge_special_tokens_unless_parsed(bundle: Bundle) -> None:
    """Both modes live in one process: as text "[SEP]" is three characters' worth of tokens, parsed it is the token."""
    as_text, parsed = tokenizer_of(bundle), tokenizer_of(bundle, SpecialTokens.PARSE)
    (text_tokens,) = as_text.encode(["cat [SEP]"])
    (parsed_tokens,) = parsed.encode(["cat [SEP]"])
    assert parsed.spell(parsed_tokens.ids) == ["[CLS]", "cat", "[SEP]", "[SEP]"]
    assert as_text.spell(text_tokens.ids).count("[SEP]") == 1
    assert list(as_text.encode(["cat [SEP]"])) == [text_tokens]


def test_unknown_ids_spell_nothing(bundle: Bundle) -> None:
    """An id outside the vocabulary does not fail the call."""
    assert tokenizer_of(bundle).spell([10**6]) == [""]


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    """A tokenizer of a kind this version does not know fails with the file's name and the way out."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"type": "FromTheFuture"}}))
    with pytest.raises(CorruptBundleError, match=r"tokenizer\.json cannot be read.*nearshore model get"):
        Tokenizer(path, max_tokens=8, special=SpecialTokens.TEXT)
