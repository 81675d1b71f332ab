"""Lengths of trainings: epochs, or fewer steps or images, in all three units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autokd.config import ProxyRecipe, Recipe
from autokd.data import subset_size


@dataclass(frozen=True)
class Length:
    """Length of one training.

    Attributes:
        epochs: epochs that are reported, a last partial one included.
        steps: optimizer steps.
        images: images that are seen, those that come again counted again.
    """

    epochs: int
    steps: int
    images: int


def training_length(num_images: int, batch_size: int, epochs: int, most_steps: int | None = None) -> Length:
    """Return the length of a training.

    Args:
        num_images: images of an epoch.
        batch_size: images of a step; the last step of an epoch may have fewer.
        epochs: greatest number of epochs.
        most_steps: greatest number of steps; None: no limit.
    """
    steps_per_epoch = math.ceil(num_images / batch_size)
    steps = epochs * steps_per_epoch
    if most_steps is None or most_steps >= steps:
        return Length(epochs, steps, epochs * num_images)
    whole, more = divmod(most_steps, steps_per_epoch)
    # The steps of a partial epoch are its first ones, so all of them are full.
    return Length(whole + (more > 0), most_steps, whole * num_images + more * batch_size)


def recipe_length(recipe: Recipe, num_images: int) -> Length:
    """Return the length of a training by a recipe.

    Args:
        recipe: recipe of a teacher, a proxy or a full training; a proxy is trained on ``subset`` of the images.
        num_images: training images of the data set.
    """
    if isinstance(recipe, ProxyRecipe):
        num_images = subset_size(num_images, recipe.subset)
    return training_length(num_images, recipe.batch_size, recipe.epochs, recipe.most_steps)
