"""Text that spells a special token stays text, in every kind of tokenizer that an export writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from nearshore.bundle import SpecialTokens
from nearshore.embedding.tokenizer import Tokenizer
from nearshore.export.exporter import export_bundle
from nearshore.export.spelled_tokens import guarded
from tests.tiny_bert import embed_golden

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
PIECES = [*((token, 0.0) for token in SPECIAL), ("▁", -2.0), ("▁a", -3.0), ("▁bad", -4.0), ("fi", -4.0)]
LETTERS = "</s>abcdefghi"


def pieces(*, normalizes: bool = True) -> dict[str, Any]:
    """A tokenizer.json such as XLM-R's, with the special tokens among its pieces."""
    vocabulary = [*PIECES, *((letter, -5.0) for letter in LETTERS)]
    made: Any = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unk_id=3))
    if normalizes:
        made.normalizer = tokenizers.normalizers.NFKC()
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    content: dict[str, Any] = json.loads(made.to_str())
    return content


WRITTEN_OTHERWISE = ("<s>", "</s>", "<|Ã©|>", "<aĠb>", "<two▁words>")
SPELLINGS = ("<|é|>", "<a b>", "<two words>")
FRAGMENTS = [
    "<|",
    "é",
    "|>",
    "<a",
    "b>",
    "<two",
    "words>",
    "Ã",
    "©",
    "Ġ",
    "▁",
    " ",
    "a",
    *WRITTEN_OTHERWISE,
    *SPELLINGS,
]


def written_otherwise(kind: str) -> dict[str, Any]:
    """A tokenizer.json whose vocabulary holds special tokens whole, in other characters than texts have for them."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    if kind == "bytes":
        vocabulary = {token: number for number, token in enumerate([*WRITTEN_OTHERWISE, *letters])}
        made: Any = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        scored = [*((token, 0.0) for token in WRITTEN_OTHERWISE), *((letter, -5.0) for letter in ["▁", *letters])]
        made = tokenizers.Tokenizer(tokenizers.models.Unigram(scored, unk_id=len(scored) - 1))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(split=False)
    made.add_special_tokens(list(WRITTEN_OTHERWISE))
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    content: dict[str, Any] = json.loads(made.to_str())
    return content


def read(content: dict[str, Any], folder: Path, special: SpecialTokens = SpecialTokens.TEXT) -> Tokenizer:
    """As a server reads it."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return Tokenizer(path, max_tokens=64, special=special)


def spelled(tokenizer: Tokenizer, text: str) -> list[str]:
    """The tokens of a text, without the two around it."""
    (tokens,) = tokenizer.encode([text])
    return tokenizer.spell(tokens.ids)[1:-1]


@pytest.mark.parametrize("normalizes", [True, False])
@pytest.mark.parametrize("text", ["a bad </s> a", "a</s>b", "＜/s＞ a", "<s>", "</s></s>", "<s</s>"])
def test_pieces_of_text_are_no_special_tokens(tmp_path: Path, text: str, normalizes: bool) -> None:
    """However it stands in the text, and where only the normalizer makes it so."""
    plain, safe = pieces(normalizes=normalizes), guarded(pieces(normalizes=normalizes))
    found = spelled(read(safe, tmp_path), text)
    assert not {"<s>", "<pad>", "</s>"} & set(found)
    if normalizes:
        assert set(spelled(read(plain, tmp_path), text)) & set(SPECIAL)  # or there was nothing to mend


@given(text=st.text(alphabet=LETTERS + " ", max_size=30))
def test_all_other_text_is_cut_as_before(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Only where a special token is spelled does anything change; read as special tokens, not even then."""
    folder = tmp_path_factory.mktemp("made")
    if not any(token in text for token in SPECIAL):
        assert spelled(read(guarded(pieces()), folder), text) == spelled(read(pieces(), folder), text)
    parsed = [read(each, folder, SpecialTokens.PARSE) for each in (guarded(pieces()), pieces())]
    assert spelled(parsed[0], text) == spelled(parsed[1], text)


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@given(text=st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join))
def test_no_text_is_a_token_that_a_vocabulary_writes_otherwise(
    tmp_path_factory: pytest.TempPathFactory, kind: str, text: str
) -> None:
    """With ▁ for a space, or a character for each byte; text that spells none is cut as before."""
    folder = tmp_path_factory.mktemp("made")
    found = spelled(read(guarded(written_otherwise(kind)), folder), text)
    assert not set(WRITTEN_OTHERWISE) & set(found)
    plain = spelled(read(written_otherwise(kind), folder), text)
    assert found == plain or set(WRITTEN_OTHERWISE) & set(plain) or any(each in text for each in WRITTEN_OTHERWISE)


@pytest.mark.parametrize(("kind", "text"), [("bytes", "<|é|>"), ("bytes", "<a b>"), ("pieces", "a <two words> a")])
def test_a_token_that_a_vocabulary_writes_otherwise_can_be_spelled_unguarded(
    tmp_path: Path, kind: str, text: str
) -> None:
    """Or there was nothing to mend."""
    assert set(spelled(read(written_otherwise(kind), tmp_path), text)) & set(WRITTEN_OTHERWISE)


def test_a_tokenizer_that_needs_no_guard_stays_as_it_is(checkpoint: Path) -> None:
    """Its bundle's fingerprint does not move: BERT cuts at punctuation, so no word is a special token."""
    content = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    assert guarded(content) == content


def test_an_export_guards_what_it_writes(checkpoint: Path, tmp_path: Path) -> None:
    """A document of a server cannot close its own text."""
    content = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    content["pre_tokenizer"] = {"type": "WhitespaceSplit"}  # words are not cut at brackets
    (checkpoint / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    bundle = export_bundle(checkpoint, tmp_path / "bundle", name="tiny", embed_golden=embed_golden)
    for special, count in ((SpecialTokens.TEXT, 0), (SpecialTokens.PARSE, 1)):
        tokenizer = Tokenizer(bundle.tokenizer_path, max_tokens=64, special=special)
        assert spelled(tokenizer, "cat [SEP] dog").count("[SEP]") == count
