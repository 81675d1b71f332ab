"""The recipes by which detectors are trained: what all share, the teacher's, the full one (``proxy`` has its own)."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from typing_extensions import Self

from autokd.config.section import BaselineName, Fraction, Section, Seeds
from autokd.errors import name_list


def _in_order(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] >= span[1]:
        raise ValueError(f"found [{span[0]:g}, {span[1]:g}], which is empty. Write the smaller number first")
    return span


def _not_reversed(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError(f"found [{span[0]:g}, {span[1]:g}]. Write the smaller number first")
    return span


ScaleRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_not_reversed)]


class Recipe(Section):
    """A recipe by which a detector is trained."""

    written_if_set: ClassVar[frozenset[str]] = frozenset(
        {"backbone_lr_factor", "steps", "images", "micro_batch_size", "trajectory_rank", "trajectory_outside"}
    )

    epochs: PositiveInt = 20
    """Number of passes over the training images."""
    steps: PositiveInt | None = None
    """Maximum number of optimizer steps; the schedules are fitted to them. A last partial epoch is reported as one.
    null: no maximum."""
    images: PositiveInt | None = None
    """Maximum number of images seen, as ``steps`` times the batch size, rounded up to whole steps; an image that comes
    again counts again. null: no maximum."""
    batch_size: PositiveInt = 8
    """Images per step."""
    micro_batch_size: PositiveInt | Literal["auto"] | None = None
    """Images that go through the student at a time; the gradients of a step are summed over them. Batch norms that are
    trained see these images alone. auto: as many as the memory of the GPU allows, on a CPU all; null: all."""
    optimizer: Literal["adamw", "sgd", "dot", "trajectory"] = "adamw"
    """Optimizer: AdamW; SGD with momentum; DOT, which is SGD with separate momenta for task and distillation gradients;
    trajectory, which is SGD whose distillation gradient is projected on the directions of the last 16 task gradients
    (it keeps these in memory). The last two need two backward passes a step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum; sgd only."""
    nesterov: bool = True
    """Whether the momentum is Nesterov's; sgd only."""
    dot_delta: Annotated[float, Field(ge=0, lt=0.1)] = 0.075
    """Half the difference of DOT's momenta, 0 to below 0.1: 0.9 - dot_delta for the task, 0.9 + dot_delta for
    distillation; dot only."""
    trajectory_rank: Annotated[int, Field(ge=1, le=16)] = 4
    """Principal directions of the task gradients that the distillation gradient is projected on; trajectory only."""
    trajectory_outside: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Factor of what the distillation gradient has outside these directions; 1: SGD; trajectory only."""
    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate of the schedule."""
    backbone_lr_factor: NonNegativeFloat = 1.0
    """Factor of the learning rate for the backbone's parameters, such as 0.1 for pretrained ones."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Weight decay of weights with two or more dimensions; ``norm_decay`` and ``bias_decay`` scale it for others."""
    norm_decay: NonNegativeFloat = 0.0
    """Factor of ``weight_decay`` for the parameters of normalization layers."""
    bias_decay: NonNegativeFloat = 0.0
    """Factor of ``weight_decay`` for biases and other parameters with fewer than two dimensions."""
    schedule: Literal["one_cycle", "constant", "multi_step", "cosine", "poly"] = "one_cycle"
    """Learning-rate schedule after the warm-up: one_cycle anneals by a cosine to 1e-4 of the peak; the others are
    mmengine's."""
    warmup_fraction: Fraction = 0.1
    """Length of the warm-up as a fraction of the training; ``constant`` ignores it."""
    warmup_steps: NonNegativeInt | None = None
    """Length of the warm-up in steps; null: ``warmup_fraction`` gives it."""
    warmup_start: Fraction = 0.001
    """Learning rate at the first step of the warm-up, as a fraction of the peak; one_cycle always starts at 1/25."""
    milestones: tuple[Fraction, ...] = (0.67, 0.92)
    """Fractions of the training after which the rate is multiplied by ``gamma``; multi_step only."""
    gamma: PositiveFloat = 0.1
    """Factor of the rate at each milestone; multi_step only."""
    schedule_span: Annotated[tuple[Fraction, Fraction], AfterValidator(_in_order)] = (0.0, 1.0)
    """Begin and end of the decay as fractions of the training, outside which the rate is constant; cosine and poly
    only."""
    end_factor: Fraction = 0.0
    """Learning rate at the end of the decay, as a fraction of the peak; cosine and poly only."""
    power: PositiveFloat = 1.0
    """Exponent of the polynomial decay, 1 being linear; poly only."""
    changes_by: Literal["step", "epoch"] = "step"
    """Unit in which the rate decays: at every step, or at every epoch; cosine and poly only."""
    recalibrate_every: PositiveInt | None = 20
    """Steps between two measurements of the gradients that relative weights are scaled by; null: they are measured
    in the first few steps alone, and gradient ratios drift after that."""
    gradient_clip_norm: PositiveFloat | None = 10.0
    """Maximum norm of the gradient, to which greater ones are scaled down; null: no clipping."""
    flip_probability: Fraction = 0.5
    """Probability that a view of an image is flipped horizontally."""
    scale_range: ScaleRange = (1.0, 1.0)
    """Range of the random scale of a view; (1, 1): no scaling."""
    num_views: PositiveInt | Literal["endless"] = 2
    """Number of random views of each image, which the epochs cycle through; the teacher's taps are cached for each, so
    that disk space grows with it. endless: every epoch shows new views, and the teacher runs beside the student."""
    color_jitter: Fraction = 0.0
    """Extent of random changes of color; 1: brightness and contrast by up to 40%, saturation by up to 70%, hue by up
    to 1.5% of the circle."""
    mosaic_probability: Fraction = 0.0
    """Probability that a view is a mosaic of four images; needs endless views."""
    mixup_probability: Fraction = 0.0
    """Probability that a view is the mean of two images; needs endless views."""
    mix_until: Fraction = 0.9
    """Fraction of the training after which mosaics and mixtures stop."""
    batch_scale_range: ScaleRange = (1.0, 1.0)
    """Range of the random scale of a whole batch, whose sides are rounded to multiples of 32 px; (1, 1): every batch
    has the size of the network's input. Needs endless views."""
    amp: bool | Literal["auto"] = "auto"
    """Automatic mixed precision; auto: on a GPU only."""

    @property
    def most_steps(self) -> int | None:
        """The lesser of ``steps`` and ``images``, in steps; None: epochs alone give the length."""
        limits = [] if self.steps is None else [self.steps]
        if self.images is not None:
            limits.append(math.ceil(self.images / self.batch_size))
        return min(limits, default=None)

    @model_validator(mode="after")
    def _mixes_only_endless_views(self) -> Self:
        mixes = [name for name in ("mosaic_probability", "mixup_probability") if getattr(self, name) > 0]
        mixes += ["batch_scale_range"] if self.batch_scale_range != (1.0, 1.0) else []
        if mixes and self.num_views != "endless":
            raise ValueError(
                f"{name_list(mixes)} needs 'num_views: endless', and num_views is {self.num_views}: views that epochs "
                "cycle through do not end with the training. Set it, or leave the keys out"
            )
        return self


TeacherOutputs = Literal["auto", "live", "memory", "disk"]
"""Places that a teacher's outputs come from: ``autokd.training.assets.teacher_outputs``."""


def check_place(place: TeacherOutputs, num_views: int | str) -> TeacherOutputs:
    """Return the place of a teacher's outputs, if views that never come again need none but the running teacher.

    Args:
        place: value of ``teacher_outputs``.
        num_views: views of an image.

    Raises:
        ValueError: if endless views would have to be kept.
    """
    if num_views == "endless" and place in ("memory", "disk"):
        raise ValueError(
            f"found '{place}', and num_views is endless: no view comes again, so that nothing is worth keeping. Give "
            "num_views a number, or take 'live' or 'auto'"
        )
    return place


class TeacherRecipe(Recipe):
    """The recipe by which the run trains its teacher, from its checkpoint on if it has one."""

    epochs: PositiveInt = 40
    """Number of passes over the training images."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the initial weights, the order of images and their views."""


class FullRecipe(Recipe):
    """The recipe of full trainings, by which the winner and the baselines are compared."""

    written_if_set: ClassVar[frozenset[str]] = Recipe.written_if_set | {"pipeline", "teacher_outputs"}

    from_student_config: bool = False
    """Whether keys that this file leaves out come from the config of an MMDetection student: optimizer, schedule,
    epochs, batch size, flips. Resolved files have false and every value written out."""

    pipeline: Literal["views", "student_config"] = "views"
    """Images of full trainings. views: views of this recipe. student_config: the train pipeline of an MMDetection
    student's config, by MMDetection's own transforms; ``flip_probability`` then has no effect. Needs endless views."""
    epochs: PositiveInt = 20
    """Number of passes over the training images."""
    seeds: Annotated[Seeds, Field(min_length=1)] = (0, 1, 2)
    """Seeds of the full trainings; each entry is trained once with each."""
    baselines: tuple[BaselineName, ...] = ("none", "fitnet", "pkd", "cwd")
    """Entries trained beside the winner: ``none`` (no distillation; always trained), presets, or YAML files of
    distillers."""
    baseline_gradient_ratio: PositiveFloat | Literal["published"] = 40.0
    """Gradient ratio of each preset among the baselines, shared by its terms; published: the weights that were
    published for the student's family of detectors (anchor_based, anchor_free, two_stage)."""
    weight_average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of a moving average of the weights, which is then the student that is measured and exported; null:
    the weights themselves."""
    patience: PositiveInt | None = None
    """Number of epochs without a better ``patience_metric`` after which a training stops; the student of its best epoch
    is measured and exported. The metric is measured after every epoch. null: every training has all epochs."""
    patience_metric: Literal["val_ap", "val_loss"] = "val_ap"
    """Metric on the validation images by which the best epoch is chosen; with ``patience`` only."""
    teacher_outputs: TeacherOutputs = "auto"
    """Place that the teachers' outputs come from: `live`, teachers that run beside the student on the same pixels;
    `memory` of each worker (of its GPU if it has one), in half precision; `disk`, a cache that all processes share.
    auto: disk up to 2 GiB, else the one whose measured cost is least, among those that fit."""
    timeout_s: PositiveFloat | None = None
    """Time limit of a training in seconds from its first step; a longer one fails with the cause timeout. null:
    ``timeout_factor`` gives it."""
    timeout_factor: PositiveFloat | None = None
    """Time limit as a multiple of the time that the student alone needs for as many steps, at the speed of a step that
    the worker measures; at least 600 s. null: no limit, unless ``timeout_s`` gives one."""

    @model_validator(mode="after")
    def _keeps_views_that_come_again(self) -> Self:
        check_place(self.teacher_outputs, self.num_views)
        return self

    @model_validator(mode="after")
    def _augments_once(self) -> Self:
        if self.pipeline == "views":
            return self
        if self.num_views != "endless":
            raise ValueError(
                f"pipeline is student_config, whose images are new in every epoch, and num_views is {self.num_views}. "
                "Set 'num_views: endless'"
            )
        names = ("scale_range", "color_jitter", "mosaic_probability", "mixup_probability", "batch_scale_range")
        given = [name for name in names if getattr(self, name) != FullRecipe.model_fields[name].default]
        if given:
            raise ValueError(
                f"pipeline is student_config, whose transforms augment the images, and {name_list(given)} would do so "
                "again. Leave these keys out, or set 'pipeline: views'"
            )
        return self
