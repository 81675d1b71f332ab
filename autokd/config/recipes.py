"""How detectors are trained: every recipe, the teacher's, the full one. ``autokd.config.proxy`` has the short one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from autokd.config.section import BaselineName, Fraction, Section, Seeds


def _in_order(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] >= span[1]:
        raise ValueError(f"the part begins at {span[0]:g} and ends at {span[1]:g}. Write the smaller number first")
    return span


class Recipe(Section):
    """How a detector is trained."""

    epochs: PositiveInt = 20
    """Passes over the training images."""
    batch_size: PositiveInt = 8
    """Images of a step."""
    optimiser: Literal["adamw", "sgd", "dot"] = "adamw"
    """AdamW; SGD with momentum; DOT: SGD with a momentum of its own for distillation (two backwards)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD only."""
    nesterov: bool = True
    """SGD only: Nesterov's momentum."""
    dot_delta: Annotated[float, Field(ge=0, lt=0.1)] = 0.075
    """DOT only, 0 to below 0.1: momentum is 0.9 - dot_delta for the task, 0.9 + dot_delta for distillation."""
    learning_rate: PositiveFloat = 2e-3
    """The greatest of the schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Norms and biases have parts of it of their own."""
    norm_decay: NonNegativeFloat = 0.0
    """Part of ``weight_decay`` that is applied to the parameters of normalisations."""
    bias_decay: NonNegativeFloat = 0.0
    """Part of ``weight_decay`` that is applied to biases, and to whatever else has fewer than two dimensions."""
    schedule: Literal["one_cycle", "constant", "multi_step", "cosine", "poly"] = "one_cycle"
    """How the rate goes on."""
    warmup_fraction: Fraction = 0.1
    """Part of the training in which the rate rises (constant: it does not)."""
    warmup_steps: NonNegativeInt | None = None
    """Steps in which the rate rises; null: ``warmup_fraction`` says it."""
    warmup_start: Fraction = 0.001
    """Part of the rate at the first step of a rise; one_cycle begins at 1/25."""
    milestones: tuple[Fraction, ...] = (0.67, 0.92)
    """multi_step: parts of the training after each of which the rate is multiplied by ``gamma``."""
    gamma: PositiveFloat = 0.1
    """multi_step only."""
    schedule_span: Annotated[tuple[Fraction, Fraction], AfterValidator(_in_order)] = (0.0, 1.0)
    """cosine and poly: the part of the training in which the rate falls; it rests before and after."""
    end_factor: Fraction = 0.0
    """cosine and poly: part of the rate towards which it falls."""
    power: PositiveFloat = 1.0
    """poly only."""
    changes_by: Literal["step", "epoch"] = "step"
    """cosine and poly: when the rate falls."""
    recalibrate_every: PositiveInt | None = 20
    """Steps between two measurements of relative weights; null: after the first few steps the ratios drift."""
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

    from_student_config: bool = False
    """Where this file is silent, the config of an MMDetection student says optimiser, schedule, epochs, batch size."""

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
