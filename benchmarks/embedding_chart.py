"""Bars of the texts/s that `embedding_speed` found, drawn as a PNG beside its result.

python -m benchmarks.embedding_chart docs/results/embedding.json
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

LABELS = {
    "int8": "engine, int8",
    "fp32": "engine, fp32",
    "c": "c: dynamic int8, sorted",
    "b": "b: float32, sorted",
    "a": "a: float32, as they come",
}
"""Sides, from above."""
COLOURS = ("#9ecae1", "#08519c")  # fewest cores, most cores
_WIDTH, _MARGIN, _LEFT, _VALUE = 1100, 30, 300, 110  # pixels; labels end at _LEFT, values need _VALUE
_TOP, _HEAD, _BAR, _GAP, _BOTTOM = 130, 44, 24, 16, 20
_TITLE, _TEXT = 26, 19
_LONGEST = _WIDTH - _LEFT - _VALUE


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the chart of a result of embedding_speed.measure(): each kind of texts has bars to a scale of its own."""
    cores = sorted({each["cores"] for each in result["speed"]})
    colours = dict(zip(cores, COLOURS[-len(cores) :], strict=True))
    height = _HEAD + len(LABELS) * (len(cores) * _BAR + _GAP)
    image = Image.new("RGB", (_WIDTH, _TOP + len(result["texts"]) * height + _BOTTOM), "white")
    pen = ImageDraw.Draw(image)
    _write_head(pen, result, colours)
    for number, (kind, texts) in enumerate(result["texts"].items()):
        top = _TOP + number * height
        said = f"{texts['count']:,} {kind} texts, {texts['tokens']:,} tokens"
        pen.text((_LEFT, top + _HEAD // 2), said, "black", _font(_TEXT), anchor="lm")
        speeds = {
            (each["name"], each["cores"]): each["texts_per_s"] for each in result["speed"] if each["kind"] == kind
        }
        _draw_kind(pen, top + _HEAD, speeds, colours)
    image.save(path)


def _draw_kind(
    pen: ImageDraw.ImageDraw, top: int, speeds: Mapping[tuple[str, int], float], colours: Mapping[int, str]
) -> None:
    """Each side's bars, that of most cores above the others."""
    for name, label in LABELS.items():
        pen.text((_LEFT - 12, top + len(colours) * _BAR // 2), label, "black", _font(_TEXT), anchor="rm")
        for number, (cores, colour) in enumerate(sorted(colours.items(), reverse=True)):
            if (name, cores) in speeds:
                _draw_bar(pen, top + number * _BAR, speeds[name, cores], max(speeds.values()), colour)
        top += len(colours) * _BAR + _GAP


def _write_head(pen: ImageDraw.ImageDraw, result: Mapping[str, Any], colours: Mapping[int, str]) -> None:
    """What was measured, on what, and what the colours mean."""
    machine = result["machine"]
    origin = "texts of the corpora" if result["texts_from"] == "corpora" else "made texts"
    pen.text((_MARGIN, 18), f"Texts per second, {origin}", "black", _font(_TITLE))
    pen.text((_MARGIN, 56), f"{machine['processor']}, commit {machine['commit']}", "#555555", _font(_TEXT))
    left = _LEFT
    for cores, colour in sorted(colours.items(), reverse=True):
        pen.rectangle((left, 94, left + 17, 111), colour)
        pen.text((left + 26, 103), f"{cores} core{'s' if cores > 1 else ''}", "black", _font(_TEXT), anchor="lm")
        left += 140


def _draw_bar(pen: ImageDraw.ImageDraw, top: int, speed: float, fastest: float, colour: str) -> None:
    end = _LEFT + max(1, round(_LONGEST * speed / fastest))
    pen.rectangle((_LEFT, top, end - 1, top + _BAR - 3), colour)
    pen.text((end + 8, top + _BAR // 2 - 1), f"{speed:,.1f}", "black", _font(_TEXT), anchor="lm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # comes with Pillow


def main() -> None:
    """Draw the chart of a result anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    path: Path = parser.parse_args().result
    draw(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png"))


if __name__ == "__main__":
    main()
