"""A vocab.txt becomes a tokenizer only where it is known how the model's authors use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers

from nearshore.bundle import Bundle
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from tests.tiny_bert import SPECIAL_TOKENS, embed_golden, vocabulary, write_json
from tests.tiny_encoders import RELATIVES, edit_config, random_tensors, write_checkpoint

WORD_PIECES = {"bert", "distilbert", "electra", "nomic_bert"}


def checkpoint(folder: Path, name: str, **settings: object) -> Path:
    """One with vocab.txt in place of tokenizer.json."""
    relative = RELATIVES[name]
    write_checkpoint(folder / name, relative.config, random_tensors(relative.shapes))
    (folder / name / "tokenizer.json").unlink()
    (folder / name / "vocab.txt").write_text("\n".join(vocabulary()), encoding="utf-8")
    write_json(folder / name / "tokenizer_config.json", settings)
    return folder / name


def export(folder: Path) -> Bundle:
    return export_bundle(folder, folder.parent / "bundle", name="tiny", embed_golden=embed_golden)


def encode(bundle: Bundle, text: str) -> list[str]:
    tokenizer: Any = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path))
    tokens: list[str] = tokenizer.encode(text).tokens
    return tokens


@pytest.mark.parametrize("name", sorted(WORD_PIECES))
def test_berts_tokenizer_is_made(tmp_path: Path, name: str) -> None:
    """Of the vocabulary alone, where the architecture's tokenizer is BERT's."""
    assert encode(export(checkpoint(tmp_path, name)), "a dog") == ["[CLS]", "a", "dog", "[SEP]"]


@pytest.mark.parametrize("name", sorted(RELATIVES.keys() - WORD_PIECES))
def test_no_tokenizer_is_guessed(tmp_path: Path, name: str) -> None:
    """MPNet's vocabulary holds BERT's special tokens, and its texts begin with others."""
    with pytest.raises(UnusableCheckpointError, match=r"tokenizer\.json is missing"):
        export(checkpoint(tmp_path, name))


@pytest.mark.parametrize(("strip", "expected"), [(None, "##e"), (True, "##e"), (False, "[UNK]")])
def test_accents_are_stripped_as_the_checkpoint_says(tmp_path: Path, strip: bool | None, expected: str) -> None:
    """Or else where letters are made small."""
    bundle = export(checkpoint(tmp_path, "bert", do_lower_case=True, strip_accents=strip))
    assert encode(bundle, "Café")[-2] == expected


@pytest.mark.parametrize(
    "setting", [{"tokenizer_class": "BertJapaneseTokenizer"}, {"do_basic_tokenize": False}, {"strip_accents": "no"}]
)
def test_another_way_to_cut_is_refused(tmp_path: Path, setting: dict[str, object]) -> None:
    """The error names the setting, and what to put there."""
    with pytest.raises(UnusableCheckpointError, match=rf"{next(iter(setting))} .* not supported") as caught:
        export(checkpoint(tmp_path, "bert", **setting))
    assert "tokenizer.json" in caught.value.remedy


def test_the_class_may_be_named_by_the_configuration(tmp_path: Path) -> None:
    """As in Japanese BERTs, whose words another program finds; tokenizer_config.json goes first."""
    folder = checkpoint(tmp_path, "bert")
    edit_config(folder, tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(UnusableCheckpointError, match=r"tokenizer_class 'BertJapaneseTokenizer' \(config\.json\)"):
        export(folder)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    export(folder)


def test_tokens_that_are_only_repeated_change_nothing(tmp_path: Path) -> None:
    """Files that say of BERT's own tokens what the vocabulary says, in every spelling that transformers has."""
    numbers = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    expected = encode(export(checkpoint(tmp_path, "bert")), "a [MASK] dog")
    settings = {
        "cls_token": "[CLS]",
        "mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": False},
        "bos_token": None,
        "added_tokens_decoder": {str(number): {"content": token} for token, number in numbers.items()},
        "extra_special_tokens": {},
    }
    folder = checkpoint(tmp_path, "bert", **settings)
    write_json(folder / "special_tokens_map.json", {"sep_token": "[SEP]", "additional_special_tokens": ["[PAD]"]})
    write_json(folder / "added_tokens.json", numbers)
    assert encode(export(folder), "a [MASK] dog") == expected


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("added_tokens.json", {"<new>": 213}, "further token, '<new>' of number 213"),
        ("added_tokens.json", {"[CLS]": 7}, r"further token, '\[CLS\]' of number 7"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"213": {"content": "<new>"}}}, "further token, '<new>'"),
        ("tokenizer_config.json", {"added_tokens_decoder": ["<new>"]}, "further token, '<new>'"),
        ("tokenizer_config.json", {"cls_token": "<s>"}, "cls_token '<s>'"),
        ("tokenizer_config.json", {"pad_token": "[CLS]"}, r"pad_token '\[CLS\]'"),
        ("special_tokens_map.json", {"sep_token": {"content": "</s>", "lstrip": False}}, "sep_token '</s>'"),
        ("special_tokens_map.json", {"additional_special_tokens": ["[SEP]", "a"]}, "additional_special_tokens 'a'"),
        ("tokenizer_config.json", {"extra_special_tokens": {"e1": "<e1>"}}, "extra_special_tokens '<e1>'"),
    ],
)
def test_other_tokens_are_refused(tmp_path: Path, file: str, content: dict[str, object], complaint: str) -> None:
    """The error names the token and the file that has it."""
    folder = checkpoint(tmp_path, "bert")
    write_json(folder / file, content)
    with pytest.raises(UnusableCheckpointError, match=rf"{complaint}.*\({file}\)") as caught:
        export(folder)
    assert "tokenizer.json" in caught.value.remedy
