"""Text to token ids, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

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


@pytest.mark.parametrize(
    ("prompt", "text", "left"),
    [
        ("", "cat dog bird fish tree river", ["[CLS]", "bird", "fish", "tree", "river", "[SEP]"]),
        ("how: ", "cat dog bird fish tree river", ["[CLS]", "how", ":", "tree", "river", "[SEP]"]),
        ("c", "at dog bird fish tree river", ["[CLS]", "cat", "fish", "tree", "river", "[SEP]"]),
        ("how to use", " cat dog", ["[CLS]", "how", "to", "use", "dog", "[SEP]"]),
        ("how to use a", " cat dog", ["[CLS]", "how", "to", "use", "a", "[SEP]"]),
        ("how to use a date", " cat dog", ["[CLS]", "how", "to", "use", "a", "[SEP]"]),
    ],
)
def test_cutting_the_start_keeps_special_tokens_and_prompt(
    bundle: Bundle, prompt: str, text: str, left: list[str]
) -> None:
    """What goes is between prompt and end; a token in which both have a part is the prompt's."""
    tokenizer = tokenizer_of(bundle, max_tokens=6)
    (tokens,) = tokenizer.encode([prompt + text])
    used = tokens.without_start(tokenizer.count_prompt(prompt, text))
    assert tokenizer.spell(used) == left
    assert len(used) == tokens.tokens_used


PIECES = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁query", -1.0), (":", -1.0), ("▁", -2.0), ("▁cat", -1.0)]


@pytest.mark.parametrize("prompt", ["query:", "query: ", "query:  "])
@pytest.mark.parametrize("kind", ["pieces", "bytes"])
def test_white_space_behind_a_prompt_may_be_the_next_words(tmp_path: Path, kind: str, prompt: str) -> None:
    """Tokenizers such as XLM-R's and RoBERTa's put it into the word's token, which belongs to the text."""
    if kind == "pieces":
        made = tokenizers.Tokenizer(tokenizers.models.Unigram(PIECES, unk_id=2))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    else:
        letters = {letter: n for n, letter in enumerate(["Ġ", *"query:cat"])}
        made = tokenizers.Tokenizer(tokenizers.models.BPE(letters, []))
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", max_tokens=64, special=SpecialTokens.TEXT)
    text = "cat cat" if prompt[-1] == " " else " cat cat"
    assert tokenizer.count_prompt(prompt, text) == {"pieces": 2, "bytes": 6}[kind]


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
