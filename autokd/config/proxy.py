"""The section ``proxy``: the recipe of the short trainings by which candidates are compared."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator
from typing_extensions import Self

from autokd.config.recipes import Recipe, TeacherOutputs, check_place
from autokd.config.section import Section, SizePx

Metric = Literal["val_loss", "val_loss_parts", "cka", "ap", "ap_50", "ap_worst_class"]
SubsetRule = Literal["random", "stratified", "k_center"]
"""Rules for choosing a part of the training images: ``autokd.data.subsets``."""
DEFAULT_IMAGES = 20_000
"""Images of a proxy whose file gives no length: two epochs of sets up to 10,000 images, an eleventh of one of COCO."""
FrozenPart = Literal["stem", "backbone"]
Measure = Literal["every_epoch", "last_epoch"]


class WarmStart(Section):
    """A student trained for some epochs without distillation, whose weights every candidate starts from."""

    written_if_set: ClassVar[frozenset[str]] = frozenset({"images"})

    epochs: Annotated[int, Field(ge=0)] = 10
    """Number of epochs for which it is trained; left out: half of the full recipe's, rounded down."""
    of_epochs: PositiveInt | None = None
    """Length of its learning-rate schedule in epochs, which is cut off after ``epochs``; null: the full recipe's."""
    images: PositiveInt | None = None
    """Maximum number of images that it sees, after which its schedule is cut off too. null: no maximum; where the file
    gives neither this nor ``epochs``, half of a full training that is limited by images or steps."""


class ProxyRecipe(Recipe):
    """The recipe of proxies, the short trainings by which candidates are compared.

    Keys of every recipe that the file gives in ``full`` alone hold for proxies too; see ``ResolvedConfig``.
    """

    # Without ``steps``, which proxies had before other recipes.
    written_if_set: ClassVar[frozenset[str]] = (Recipe.written_if_set - {"steps"}) | {"teacher_outputs"}

    epochs: PositiveInt = 2
    """Number of passes over the training images, after the warm start if there is one."""
    of_epochs: PositiveInt | None = None
    """Length of the schedules in epochs, which are cut off after ``epochs``; null: ``epochs``."""
    images: PositiveInt | None = None
    """Maximum number of images seen, as ``steps`` times the batch size; an image that comes again counts again. Left
    out together with ``epochs``, ``of_epochs`` and ``steps``: 20,000. null: no maximum."""
    batch_size: PositiveInt = 4
    """Images per step; left out: half of ``full.batch_size``, or what a student's config says."""
    warm_start: WarmStart | None = None
    """Training without distillation whose weights candidates start from; null: from the student's initial weights, as
    full trainings do."""
    reward: tuple[Metric, ...] = ("val_loss_parts", "cka", "ap")
    """Metrics whose gains over no distillation, with equal random numbers, are standardized and summed into the reward.
    `val_loss_parts`: each part of the validation loss as a metric of its own; `ap_worst_class`: the lowest AP of any
    class."""
    measure: Measure = "every_epoch"
    """Epochs after which the reward is measured. `last_epoch` is cheaper, and excludes a pruner."""
    weight_average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of a moving average of the weights, whose metrics are measured; null: those of the weights
    themselves."""
    image_size_px: SizePx | None = None
    """Height and width of the network's input in pixels, at most ``data.image_size_px``; warm start and teacher get it
    too. null: ``data.image_size_px``."""
    subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the training images that a candidate is trained on."""
    subset_rule: SubsetRule = "random"
    """Rule that chooses this fraction: at random; `stratified`, with each class's share of the boxes kept; `k_center`,
    spread over the teacher's features."""
    val_subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the validation images on which the reward is measured: always the same ones, with each class's share
    of the boxes kept."""
    frozen: tuple[FrozenPart, ...] = ()
    """Parts of the student whose weights and norm statistics do not change: `stem`, or `backbone` (stem included,
    feature pyramid not). Needs a warm start."""
    calibration_trials: PositiveInt = 5
    """Number of first trials whose spread, together with no distillation, gives the scale of each metric of the
    reward."""
    teacher_outputs: TeacherOutputs = "auto"
    """Place that the teachers' outputs come from: `live`, teachers that run beside the student on the same pixels;
    `memory` of each worker (of its GPU if it has one), in half precision; `disk`, a cache that all processes share.
    auto: disk up to 2 GiB, else the one whose measured cost is least, among those that fit."""
    timeout_s: PositiveFloat | None = None
    """Time limit of a trial in seconds from its first step; a longer one fails with the cause timeout. null:
    ``timeout_factor`` gives it."""
    timeout_factor: PositiveFloat | None = 20.0
    """Time limit as a multiple of the time that the student alone needs for as many steps, at the speed of a step that
    the worker measures; at least 600 s. null: no limit, unless ``timeout_s`` gives one."""

    @field_validator("of_epochs")
    @classmethod
    def _reaches_beyond(cls, of_epochs: int | None, info: ValidationInfo) -> int | None:
        epochs = info.data.get("epochs")
        if of_epochs is not None and epochs is not None and of_epochs < epochs:
            raise ValueError(
                f"found {of_epochs}, a schedule that ends before the {epochs} epochs do. Give at least {epochs}"
            )
        return of_epochs

    @field_validator("of_epochs")
    @classmethod
    def _is_the_schedule(cls, of_epochs: int | None, info: ValidationInfo) -> int | None:
        for name in ("steps", "images"):
            if of_epochs is not None and info.data.get(name) is not None:
                raise ValueError(
                    f"found {of_epochs} beside {name}, and both give the length of the schedules. Leave one of them out"
                )
        return of_epochs

    @field_validator("frozen")
    @classmethod
    def _have_learned_before(cls, frozen: tuple[FrozenPart, ...], info: ValidationInfo) -> tuple[FrozenPart, ...]:
        if frozen and "warm_start" in info.data:
            warm_start = info.data["warm_start"]
            if warm_start is None or warm_start.epochs == 0:
                raise ValueError(
                    f"found [{', '.join(frozen)}], but without a warm start these parts would keep untrained weights. "
                    "Give warm_start at least one epoch, or leave frozen out"
                )
        return frozen

    @model_validator(mode="after")
    def _spreads_over_cached_features(self) -> Self:
        if self.subset_rule == "k_center" and self.subset < 1 and self.num_views == "endless":
            raise ValueError(
                "subset_rule 'k_center' reads the teacher's cached features, and of 'num_views: endless' nothing is "
                "cached. Give num_views a number, or take subset_rule 'stratified' or 'random'"
            )
        return self

    @model_validator(mode="after")
    def _keeps_views_that_come_again(self) -> Self:
        check_place(self.teacher_outputs, self.num_views)
        return self
