"""The section ``proxy``: the short training by which candidates are judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from autokd.config.recipes import Recipe
from autokd.config.section import Section, SizePx

Metric = Literal["val_loss", "val_loss_parts", "cka", "ap", "ap_50", "ap_worst_class"]
SubsetRule = Literal["random", "stratified", "k_centre"]
"""How a part of the training images is chosen: ``autokd.data.subsets`` says how."""
FrozenPart = Literal["stem", "backbone"]
Measure = Literal["every_epoch", "last_epoch"]


class WarmStart(Section):
    """A student trained for a while without distillation, from which every candidate starts."""

    epochs: Annotated[int, Field(ge=0)] = 10
    """How long it was trained; left out: half of the full recipe's epochs."""
    of_epochs: PositiveInt | None = None
    """Length of the schedule that is cut off after ``epochs``; null: the full recipe's."""


class ProxyRecipe(Recipe):
    """The short training by which candidates are judged."""

    epochs: PositiveInt = 2
    """Of a candidate, after the warm start if there is one."""
    of_epochs: PositiveInt | None = None
    """Length of the schedule that is cut off after ``epochs``; null: they are the whole of it."""
    steps: PositiveInt | None = None
    """At most so many steps in all, over which the schedule then spans; a last part of an epoch is reported as one."""
    batch_size: PositiveInt = 4
    """Images of a step; left out: half of the full recipe's, or what an MMDetection config says."""
    warm_start: WarmStart | None = None
    """Where candidates start; null: from scratch, as a full training does."""
    reward: tuple[Metric, ...] = ("val_loss_parts", "cka", "ap")
    """Each against "none" under the same random numbers, standardised, and added; `val_loss_parts`: each part of the
    loss for itself, `ap_worst_class`: the lowest AP."""
    measure: Measure = "every_epoch"
    """When the reward's parts are measured. `last_epoch` is cheaper, and leaves a pruner nothing to go by."""
    weight_average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What is measured: a moving average of the weights with this decay a step; null: the weights themselves."""
    image_size_px: SizePx | None = None
    """Height and width of the images, of at most the data's; warm start and teacher see them too. null: the data's."""
    subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training images that a candidate sees."""
    subset_rule: SubsetRule = "random"
    """Which: `stratified` keeps the classes' shares of boxes, `k_centre` spreads over the teacher's features."""
    val_subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the validation images on which a candidate is judged."""
    frozen: tuple[FrozenPart, ...] = ()
    """Parts of the student that stand still, weights and norm statistics: `stem`, or `backbone` (without pyramid)."""
    calibration_trials: PositiveInt = 5
    """Trials whose spread, with "none", gives the scales of the reward's parts."""
    timeout_s: PositiveFloat | None = 3600.0
    """A trial that takes longer ends as failed with the cause timeout."""

    @field_validator("of_epochs")
    @classmethod
    def _reaches_beyond(cls, of_epochs: int | None, info: ValidationInfo) -> int | None:
        epochs = info.data.get("epochs")
        if of_epochs is not None and epochs is not None and of_epochs < epochs:
            raise ValueError(
                f"a schedule of {of_epochs} epochs is over before the {epochs} epochs are. Give at least {epochs}"
            )
        return of_epochs

    @field_validator("steps")
    @classmethod
    def _are_the_schedule(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if steps is not None and info.data.get("of_epochs") is not None:
            raise ValueError(
                f"found {steps} beside of_epochs: the schedule spans either the one or the other. Leave one of them out"
            )
        return steps

    @field_validator("frozen")
    @classmethod
    def _have_learnt_before(cls, frozen: tuple[FrozenPart, ...], info: ValidationInfo) -> tuple[FrozenPart, ...]:
        if frozen and "warm_start" in info.data:
            warm_start = info.data["warm_start"]
            if warm_start is None or warm_start.epochs == 0:
                raise ValueError(
                    f"found [{', '.join(frozen)}], but without a warm start these parts have learnt nothing that could "
                    "stand still. Give warm_start at least one epoch, or leave frozen out"
                )
        return frozen
