"""How detectors are trained: every recipe, the teacher's, the full one. ``autokd.config.proxy`` has the short one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from autokd.config.section import BaselineName, Fraction, Section, Seeds


class Recipe(Section):
    """How a detector is trained."""

    epochs: PositiveInt = 20
    """Passes over the training images."""
    batch_size: PositiveInt = 8
    """Images of a step."""
    optimiser: Literal["adamw", "sgd", "dot"] = "adamw"
    """AdamW; SGD with Nesterov momentum 0.9; DOT: SGD with a momentum of its own for distillation (two backwards)."""
    dot_delta: Annotated[float, Field(ge=0, lt=0.1)] = 0.075
    """DOT only, 0 to below 0.1: momentum is 0.9 - dot_delta for the task, 0.9 + dot_delta for distillation."""
    learning_rate: PositiveFloat = 2e-3
    """The greatest of the schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Not applied to norms and biases."""
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    """How the rate goes on."""
    warmup_fraction: Fraction = 0.1
    """Part of the one-cycle schedule in which the rate rises."""
    gradient_clip_norm: PositiveFloat | None = 10.0
    """Longer gradients are shortened to this; null: never."""
    flip_probability: Fraction = 0.5
    """Of a view being mirrored left to right."""
    scale_range: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Random zoom of a view; (1, 1) switches it off."""
    num_views: PositiveInt = 2
    """Different replayable views of an image; the teacher's taps are stored for each."""
    amp: bool | Literal["auto"] = "auto"
    """Mixed precision; auto: on a GPU only."""


class TeacherRecipe(Recipe):
    """How the run trains its teacher when there is no checkpoint."""

    epochs: PositiveInt = 40
    """Passes over the training images."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of weights, order of images and views."""


class FullRecipe(Recipe):
    """The training that counts."""

    epochs: PositiveInt = 20
    """Of every full training."""
    seeds: Annotated[Seeds, Field(min_length=1)] = (0, 1, 2)
    """One full training each, of every entry."""
    baselines: tuple[BaselineName, ...] = ("none", "fitnet", "pkd", "cwd")
    """What is trained beside the winner: none (always), presets, or files of distillers."""
    baseline_strength: PositiveFloat | Literal["published"] = 40.0
    """Gradient ratio of each preset, shared by its terms; published: the weights of their papers."""
    timeout_s: PositiveFloat | None = None
    """As for the proxy; null: no limit."""
