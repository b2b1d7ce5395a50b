"""Finds the fastest recipe whose vectors are still those of float32, as far as its loss says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nearshore.bundle import Trial, cosines
from nearshore.export.int8.recipe import Loss, Recipe
from nearshore.records import F32


@dataclass(frozen=True, slots=True)
class Found:
    """The recipe that was kept, and all that were tried before it, it included."""

    recipe: Recipe
    trials: tuple[Trial, ...]


def find_recipe(
    recipes: Sequence[Recipe], embed: Callable[[Recipe], F32], exact: F32, loss: Loss
) -> Found | tuple[Trial, ...]:
    """The first recipe within the loss; where there is none, the trials.

    embed: the vectors (texts, dimensions) that a recipe gives for the texts whose float32 vectors are `exact`.
    """
    trials: list[Trial] = []
    for recipe in recipes:
        found = cosines(embed(recipe), exact)
        mean, least = float(found.mean()), float(found.min())
        trials.append(Trial(recipe=str(recipe), mean_cosine=round(mean, 6), least_cosine=round(least, 6)))
        if loss.allows(mean, least):
            return Found(recipe, tuple(trials))
    return tuple(trials)
