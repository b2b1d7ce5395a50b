"""What may be done to a network on its way to integers, from the fastest to the most careful."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SCHEMES: Final = ("static-u8s8-1", "static-u8s8-2")  # of all releases, the newest last
SCHEME: Final = _SCHEMES[-1]
"""Of everything that a recipe leaves unsaid: the arithmetic, that of attention without a mask included, and the texts
by which ranges are found."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How activations are prepared before they are rounded to 8 bits."""

    alpha: float  # of SmoothQuant: how much of a channel's size moves into the weights; 0 none, 1 all
    outliers: int  # of each feed-forward's activations: so many channels stay in float32, beside the integer product
    exact_layers: int = 0  # so many layers, the last ones first, keep their second feed-forward product in float32

    def __str__(self) -> str:
        """As it stands in a manifest, and in a fingerprint."""
        return f"{SCHEME} alpha={self.alpha} outliers={self.outliers} exact_layers={self.exact_layers}"


def is_outdated(recipe: str) -> bool:
    """Whether a recipe, as it stands in a manifest, is of an older scheme than that of this release."""
    return recipe.partition(" ")[0] in _SCHEMES[:-1]


@dataclass(frozen=True, slots=True)
class Loss:
    """What a recipe may cost: cosines of its vectors with those in float32, over texts it was not made with."""

    least_mean: float = 0.998
    least: float = 0.985

    def allows(self, mean: float, least: float) -> bool:
        """Whether these cosines are within it."""
        return mean >= self.least_mean and least >= self.least


def ladder(layers: int) -> tuple[Recipe, ...]:
    """The recipes that are tried, each slower than the one before, for a network of so many layers."""
    return (
        Recipe(0.6, 0),
        Recipe(0.6, 16),
        Recipe(0.6, 32),
        *(Recipe(0.6, 32, exact) for exact in sorted({max(1, layers // 4), max(1, layers // 2), layers})),
    )
