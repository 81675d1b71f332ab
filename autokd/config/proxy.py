"""The section ``proxy``: the short training by which candidates are judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from autokd.config.recipes import Recipe
from autokd.config.section import Section, SizePx

Metric = Literal["val_loss", "cka", "ap"]


class WarmStart(Section):
    """The half-trained undistilled student from which every candidate starts."""

    epochs: Annotated[int, Field(ge=0)] = 10
    """How long it was trained without distillation; left out: half of the full recipe's epochs."""
    of_epochs: PositiveInt | None = None
    """Length of the schedule that is cut off after ``epochs``; null: the full recipe's."""


class ProxyRecipe(Recipe):
    """The short training by which candidates are judged."""

    epochs: PositiveInt = 4
    """Of a candidate, after the warm start."""
    warm_start: WarmStart | None = WarmStart()
    """Where candidates start; null: from scratch."""
    reward: tuple[Metric, ...] = ("val_loss", "cka")
    """Each against "none" under the same random numbers, standardised, and added."""
    image_size_px: SizePx | None = None
    """Height and width of the images, of at most the data's; warm start and teacher see them too. null: the data's."""
    subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training images that a candidate sees."""
    val_subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the validation images on which a candidate is judged."""
    calibration_trials: PositiveInt = 5
    """Trials whose spread, with "none", gives the scales of the reward's parts."""
    timeout_s: PositiveFloat | None = 3600.0
    """A trial that takes longer ends as failed with the cause timeout."""
