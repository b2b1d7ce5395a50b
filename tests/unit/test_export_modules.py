"""Of the modules of sentence-transformers, what would be read wrongly is refused, and what says nothing is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearshore.export.errors import UnusableCheckpointError
from tests.tiny_bert import write_json
from tests.unit.test_export_checkpoint import edit, export

POOLING = "1_Pooling/config.json"


@pytest.mark.parametrize("prompts", [{}, {"query": "", "document": ""}, None])
def test_pooling_without_prompts_that_there_are_not(checkpoint: Path, prompts: dict[str, str] | None) -> None:
    """include_prompt says nothing about a checkpoint that puts nothing before a text."""
    expected = export(checkpoint).manifest
    edit(POOLING, include_prompt=False)(checkpoint)
    if prompts is not None:
        write_json(checkpoint / "config_sentence_transformers.json", {"prompts": prompts})
    assert export(checkpoint).manifest == expected


def test_refuses_pooling_without_prompts(checkpoint: Path) -> None:
    """Where there are prompts, their tokens would have to be left out."""
    edit(POOLING, include_prompt=False)(checkpoint)
    write_json(checkpoint / "config_sentence_transformers.json", {"prompts": {"query": "q: ", "document": ""}})
    with pytest.raises(UnusableCheckpointError, match=r"\(include_prompt\)"):
        export(checkpoint)


@pytest.mark.parametrize("config", [{"pooling_mode_cls_token": True}, {"pooling_mode_mean_tokens": None}, {}])
def test_refuses_pooling_that_leaves_open_whether_it_is_by_mean(checkpoint: Path, config: dict[str, object]) -> None:
    """An absent switch of the mean is on in sentence-transformers, all others are off."""
    write_json(checkpoint / POOLING, config)
    with pytest.raises(UnusableCheckpointError, match="pooling_mode_mean_tokens"):
        export(checkpoint)


STOCK = {"path": "", "type": "sentence_transformers.models.Transformer"}


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([STOCK, {"path": "1_Pooling", "type": "my_code.Pooling"}], r"asks for my_code\.Pooling"),
        ([{"path": "", "type": "Transformer"}], "asks for Transformer"),
        (["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"], "asks for sentence_tr"),
        ([STOCK, {"path": "", "type": "sentence_transformers.models.Pooling"}], "a module at ''"),
        ([STOCK, {"path": "/etc", "type": "sentence_transformers.models.Pooling"}], "a module at '/etc'"),
        ([STOCK, {"path": "../x", "type": "sentence_transformers.models.Pooling"}], r"a module at '\.\./x'"),
        ([STOCK, {"type": "sentence_transformers.models.Pooling"}], "a module at None"),
    ],
)
def test_refuses_modules_that_are_not_the_librarys_own(checkpoint: Path, modules: list[object], said: str) -> None:
    """A class that a checkpoint brings along may do anything, and a module lies inside its checkpoint."""
    write_json(checkpoint / "modules.json", modules)
    with pytest.raises(UnusableCheckpointError, match=said):
        export(checkpoint)


@pytest.mark.parametrize(
    "config",
    [
        {"prompts": {"query": "q: "}, "default_prompt_name": ["query"]},
        {"prompts": {"query": "q: "}, "default_prompt_name": "passage"},
        {"prompts": {"query": "q \ud800"}},
        {"prompts": {"": "q: "}},
        {"prompts": ["q: "]},
    ],
)
def test_refuses_prompts_that_are_none(checkpoint: Path, config: dict[str, object]) -> None:
    """With the file's name, not by a bug's traceback."""
    write_json(checkpoint / "config_sentence_transformers.json", config)
    with pytest.raises(UnusableCheckpointError, match=r"config_sentence_transformers\.json"):
        export(checkpoint)
