"""Texts and pairs are packed with their special tokens, cut in turns and padded; a literal special token is text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers

from nearshore.bundle import CorruptBundleError, SpecialTokens
from nearshore.embedding.packing import Packer, SpecialTable
from tests.tiny_bert import make_tokenizer, vocabulary


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    make_tokenizer(vocabulary()).save(str(path))
    return path


@pytest.fixture
def packer(path: Path) -> Packer:
    return Packer(path, special=SpecialTokens.TEXT)


def test_the_table_of_special_tokens(packer: Packer) -> None:
    """Their numbers, and how many tokens there are."""
    assert packer.table == SpecialTable(len(vocabulary()), 0, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "length", "tokens", "types"),
    [
        (("a dog",), 6, "[CLS] a dog [SEP] [PAD] [PAD]", "000000"),
        (("a dog in the city",), 5, "[CLS] a dog in [SEP]", "00000"),
        (("",), 3, "[CLS] [SEP] [PAD]", "000"),
        (("a dog", "the city"), 8, "[CLS] a dog [SEP] the city [SEP] [PAD]", "00001110"),
        (("a dog in the city", "a cat"), 8, "[CLS] a dog in [SEP] a cat [SEP]", "00000111"),
        (("a", "a cat in the city"), 7, "[CLS] a [SEP] a cat in [SEP]", "0001111"),
        (("a dog in the city", "a cat in the city"), 8, "[CLS] a dog in [SEP] a cat [SEP]", "00000111"),
        (("a dog", ""), 5, "[CLS] a dog [SEP] [SEP]", "00001"),
        (("a", "b"), 3, "[CLS] [SEP] [SEP]", "001"),
        (("[SEP]",), 7, "[CLS] [ s ##e ##p ] [SEP]", "0000000"),
    ],
)
def test_packs(packer: Packer, text: Any, length: int, tokens: str, types: str) -> None:
    """Texts of a pair lose tokens in turns, the second first; types are 1 for the second text and what closes it."""
    packed = packer.pack([text], length)
    spelt = " ".join(packer.spell([int(number) for number in packed.ids[0]]))
    assert spelt == tokens
    assert "".join(map(str, packed.types[0])) == types
    assert packed.mask[0].sum() == length - tokens.count("[PAD]")


def test_no_room_for_special_tokens(packer: Packer) -> None:
    """Is an error, not a shorter text."""
    with pytest.raises(ValueError, match="2 tokens leave no room"):
        packer.pack([("a", "b")], 2)


def test_special_tokens_in_a_text_may_be_parsed(path: Path) -> None:
    """As the bundle says."""
    packed = Packer(path, special=SpecialTokens.PARSE).pack([("[MASK]",)], 3)
    assert packed.ids[0].tolist() == [2, 4, 3]


def test_another_family_packs_as_its_tokenizer_says(tmp_path: Path) -> None:
    """RoBERTa closes the first text twice and has no types."""
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "a": 3, "b": 4, "<mask>": 5}
    tokenizer: Any = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    packer = Packer(tmp_path / "tokenizer.json", special=SpecialTokens.TEXT)
    assert packer.table == SpecialTable(6, 1, 0, 2, 5)
    packed = packer.pack([("a", "b")], 8)
    assert packed.ids[0].tolist() == [0, 3, 2, 2, 4, 2, 1, 1]
    assert packed.types.sum() == 0


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptBundleError, match=r"tokenizer\.json cannot be used"):
        Packer(tmp_path / "tokenizer.json", special=SpecialTokens.TEXT)
