"""A tokenizer.json is taken as it is, and only where nothing else says that texts are cut in another way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nearshore.bundle import Bundle
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from tests.tiny_bert import embed_golden, write_json
from tests.tiny_encoders import edit_config

Settings = dict[str, object]
STATED: Settings = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}


def export(folder: Path, options: ExportOptions | None = None) -> Bundle:
    return export_bundle(folder, folder.parent / "bundle", name="tiny", embed_golden=embed_golden, options=options)


def write(folder: Path, settings: Settings, normalizer: Settings) -> Path:
    """tokenizer_config.json, and entries of the normalizer in tokenizer.json."""
    write_json(folder / "tokenizer_config.json", settings)
    content = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder / "tokenizer.json", content | {"normalizer": content["normalizer"] | normalizer})
    return folder


def normalizer(bundle: Bundle) -> Settings:
    settings: Settings = json.loads(bundle.tokenizer_path.read_text())["normalizer"]
    return settings


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {}),
        (STATED, {}),
        ({**STATED, "strip_accents": True}, {}),
        ({"do_lower_case": False}, {"lowercase": False}),
        ({**STATED, "do_lower_case": False, "strip_accents": False}, {"lowercase": False}),
        ({"tokenize_chinese_chars": False}, {"handle_chinese_chars": False}),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {"lowercase": False, "strip_accents": True}),
    ],
    ids=str,
)
def test_files_that_agree_are_taken(checkpoint: Path, settings: Settings, changes: Settings) -> None:
    """What tokenizer_config.json repeats, or means by its silence, does not change the tokenizer."""
    bundle = export(write(checkpoint, settings, changes))
    assert normalizer(bundle).items() >= changes.items()


@pytest.mark.parametrize(
    ("settings", "changes", "complaint"),
    [
        ({"do_lower_case": False}, {}, "has do_lower_case False, and tokenizer.json has lowercase True"),
        ({"do_lower_case": True}, {"lowercase": False}, "has do_lower_case True, and tokenizer.json"),
        ({}, {"lowercase": False}, "has no do_lower_case, which is taken for True, and tokenizer.json"),
        ({"strip_accents": False}, {}, "has strip_accents False, and tokenizer.json has strip_accents None"),
        ({}, {"strip_accents": False}, "has no strip_accents, which is taken for None"),
        ({"tokenize_chinese_chars": False}, {}, "has tokenize_chinese_chars False"),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, {}, "has do_lower_case False"),
    ],
    ids=str,
)
def test_files_that_contradict_each_other_are_refused(
    checkpoint: Path, settings: Settings, changes: Settings, complaint: str
) -> None:
    """The authors' code would cut texts as tokenizer_config.json says, and the error names both files."""
    with pytest.raises(UnusableCheckpointError, match=f"tokenizer_config.json {complaint}") as caught:
        export(write(checkpoint, settings, changes))
    assert "tokenizer_config.json" in caught.value.remedy
    assert not (checkpoint.parent / "bundle").exists()


def test_the_class_may_be_named_by_the_configuration(checkpoint: Path) -> None:
    """One that leaves the normalizer alone takes nothing for granted."""
    edit_config(checkpoint, tokenizer_class="PreTrainedTokenizerFast")
    assert normalizer(export(write(checkpoint, {}, {"lowercase": False})))["lowercase"] is False


@pytest.mark.parametrize("lower_case", [True, False])
def test_another_case_than_the_file_has_cannot_be_asked_for(checkpoint: Path, lower_case: bool) -> None:
    """It is refused, not ignored, whether or not the file would do the same."""
    with pytest.raises(UnusableCheckpointError, match=r"tokenizer\.json says itself how texts are cut") as caught:
        export(checkpoint, ExportOptions(lower_case=lower_case))
    assert "--cased" in caught.value.remedy
