"""Lengths of trainings: epochs, or fewer steps or images, in all three units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autokd.config import ProxyRecipe, Recipe
from autokd.data import subset_size
from autokd.data.orientation import bucket_sizes


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


def training_length(
    num_images: int, batch_size: int, epochs: int, most_steps: int | None = None, num_turned: int = 0
) -> Length:
    """Return the length of a training.

    Args:
        num_images: images of an epoch.
        batch_size: images of a step; the last step of an epoch may have fewer.
        epochs: greatest number of epochs.
        most_steps: greatest number of steps; None: no limit.
        num_turned: images of an epoch that are shown in the turned frame, and so in batches of their own.
    """
    buckets = list(bucket_sizes(num_images, num_turned))
    steps_per_epoch = sum(math.ceil(count / batch_size) for count in buckets)
    steps = epochs * steps_per_epoch
    if most_steps is None or most_steps >= steps:
        return Length(epochs, steps, epochs * num_images)
    whole, more = divmod(most_steps, steps_per_epoch)
    # The steps of a partial epoch are its first ones, and batches that are not full come last.
    full = min(more, sum(count // batch_size for count in buckets))
    rest = sum([count % batch_size for count in buckets if count % batch_size][: more - full])
    return Length(whole + (more > 0), most_steps, whole * num_images + full * batch_size + rest)


def recipe_length(recipe: Recipe, num_images: int, num_turned: int = 0) -> Length:
    """Return the length of a training by a recipe.

    Args:
        recipe: recipe of a teacher, a proxy or a full training; a proxy is trained on ``subset`` of the images.
        num_images: training images of the data set.
        num_turned: those that are shown in the turned frame; of a subset, their share is that of all images.
    """
    if isinstance(recipe, ProxyRecipe):
        part = subset_size(num_images, recipe.subset)
        num_images, num_turned = part, round(num_turned * part / num_images)
    return training_length(num_images, recipe.batch_size, recipe.epochs, recipe.most_steps, num_turned)
