"""The chart of a benchmark's result says what the result says."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from benchmarks import embedding_chart

SPEEDS = {("int8", 2): 300.0, ("int8", 1): 160.0, ("fp32", 2): 120.0, ("fp32", 1): 60.0, ("a", 2): 12.0, ("a", 1): 7.0}


def result(speeds: dict[tuple[str, int], float]) -> dict[str, Any]:
    """A result with these texts/s, by side and cores."""
    return {
        "machine": {"processor": "A processor", "commit": "fb15ad3"},
        "texts": {"mixed": {"count": 1500, "tokens": 67406}, "short": {"count": 1500, "tokens": 15000}},
        "texts_from": "made",
        "speed": [
            {"kind": kind, "name": name, "cores": cores, "texts_per_s": times * each}
            for kind, times in (("mixed", 1), ("short", 4))
            for (name, cores), each in speeds.items()
        ],
    }


def widths(path: Path, colour: str) -> list[int]:
    """Of the bars of a colour, from above, in pixels; the first is in the legend."""
    image = np.asarray(Image.open(path).convert("RGB"))
    rows = (image == ImageColor.getrgb(colour)).all(axis=2).sum(axis=1).tolist()
    return [row for row, above in zip(rows[1:], rows, strict=False) if row and not above]


def test_bars_are_as_long_as_speeds_are_high(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn from the JSON alone, kind by kind of texts, to one scale for one core and for all."""
    path = tmp_path / "embedding.json"
    path.write_text(json.dumps(result(SPEEDS)))
    monkeypatch.setattr(sys, "argv", ["chart", str(path)])
    embedding_chart.main()
    one, all_ = (widths(path.with_suffix(".png"), colour)[1:] for colour in embedding_chart.COLOURS)
    longest = all_[0]
    assert [*one, *all_] == [
        pytest.approx(longest * SPEEDS[name, cores] / 300, abs=1)
        for cores in (1, 2)
        for name in ("int8", "fp32", "a") * 2
    ]


def test_a_machine_of_one_core_has_one_bar_a_side(tmp_path: Path) -> None:
    """There is nothing to compare it with."""
    embedding_chart.draw(result({("int8", 1): 10.0, ("b", 1): 5.0}), tmp_path / "chart.png")
    assert len(widths(tmp_path / "chart.png", embedding_chart.COLOURS[1])) == 5
    assert widths(tmp_path / "chart.png", embedding_chart.COLOURS[0]) == []
