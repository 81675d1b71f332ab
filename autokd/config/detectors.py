"""The sections ``teacher`` and ``student``: detectors of each framework, one teacher or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from autokd.config.recipes import TeacherRecipe
from autokd.config.section import Section
from autokd.errors import one_of


class Backbone(Section):
    """A ResNet of basic blocks of a chosen depth and width, or an official one by name."""

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101"] | None = None
    """An official torchvision ResNet; ``blocks`` and ``width`` are then fixed."""
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1, 1)
    """Residual blocks in each of the four stages."""
    width: PositiveInt = 16
    """Channels of the first stage; each further stage doubles them."""


class TorchvisionDetector(Section):
    """A torchvision detector over a feature pyramid."""

    framework: Literal["torchvision"] = "torchvision"
    """Who builds the model."""
    architecture: Literal["fcos", "retinanet", "faster_rcnn"] = "fcos"
    """The detector, over a feature pyramid."""
    backbone: Backbone = Backbone()
    """A ResNet."""
    fpn_channels: PositiveInt = 64
    """Channels of every level of the pyramid, and of the head."""
    head_convs: PositiveInt = 2
    """Convolutions in each branch of a dense head."""
    box_start: NonNegativeFloat = 0.0
    """FCOS only: distance of a box's sides from its cell at the first step, in strides. From 0, torchvision's own, one
    side of all boxes may come to stay at 0 where the rate rises fast; 1 keeps it alive."""
    checkpoint: Path | None = None
    """Weights to start from (a state dict, read with weights_only)."""
    train: TeacherRecipe | None = None
    """Teacher only: train it, when there is no checkpoint."""

    @model_validator(mode="after")
    def _only_fcos_has_sides(self) -> TorchvisionDetector:
        if self.box_start and self.architecture != "fcos":
            raise ValueError(f"box_start is for fcos, whose boxes are distances; leave it out of a {self.architecture}")
        return self

    @model_serializer(mode="wrap")
    def _without_an_unused_start(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name != "box_start" or value}


class MmdetDetector(Section):
    """A detector of MMDetection 3.x: the user's own config, whose file is Python and runs as such."""

    framework: Literal["mmdet"]
    """Who builds the model."""
    config: Annotated[str, Field(min_length=1)]
    """Path of a config, or its name in MMDetection's zoo (``retinanet_r50_fpn_1x_coco``). The file's Python is run."""
    options: dict[str, Any] = Field(default={})
    """Keys of the config to set anew, by dotted name: ``{model.neck.out_channels: 64}``."""
    checkpoint: Path | None = None
    """Weights to start from, as mmengine saves them (data only: no code is run)."""
    classes: tuple[str, ...] | None = None
    """Names of the checkpoint's classes, in its order, where the checkpoint itself does not say."""
    new_head: bool = False
    """Take a checkpoint of other classes, and start the layers that depend on the classes anew."""
    train: TeacherRecipe | None = None
    """Teacher only: train it, when there is no checkpoint."""


Detector = Annotated[TorchvisionDetector | MmdetDetector, Field(discriminator="framework")]
"""Every framework's section, told apart by ``framework``; left out in a file, it is torchvision."""


def _distinct_teachers(teachers: tuple[Detector, ...]) -> tuple[Detector, ...]:
    if not teachers:
        raise ValueError("the list is empty. Give at least one teacher")
    for i, teacher in enumerate(teachers):
        if teacher in teachers[:i]:
            first = teachers.index(teacher)
            raise ValueError(f"teachers {first + 1} and {i + 1} are one and the same. Name it once, with its factor")
    return teachers


TeacherTag = Literal["one", "several"]


def _one_or_several(teacher: Any) -> TeacherTag:
    return "several" if isinstance(teacher, (list, tuple)) else "one"


Teachers = Annotated[
    Annotated[Detector, Tag("one")]
    | Annotated[tuple[Detector, ...], AfterValidator(_distinct_teachers), Tag("several")],
    Discriminator(_one_or_several),
]
"""One section, or a list of them; a list of one is that one."""

TeacherRule = Literal["equal", "gap", "gradient"]
"""Rules for the factors of several teachers: ``autokd.distill.teacher_ensemble``."""
TEACHER_RULES: tuple[TeacherRule, ...] = ("equal", "gap", "gradient")


def _known_factors(found: Any) -> Any:
    remedy = f"Write one of {', '.join(TEACHER_RULES)}, or a list of positive numbers, one a teacher"
    if isinstance(found, str):
        if found not in TEACHER_RULES:
            raise ValueError(f"{one_of(found, TEACHER_RULES)} {remedy}")
    elif not isinstance(found, (list, tuple)) or not all(_is_positive(number) for number in found):
        raise ValueError(f"found {found!r}. {remedy}")
    return found


def _is_positive(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < float("inf")


TeacherFactors = Annotated[TeacherRule | tuple[float, ...], BeforeValidator(_known_factors)]


def with_framework(section: Any) -> Any:
    """A detector's section with the ordinary framework where it names none."""
    if isinstance(section, dict) and "framework" not in section:
        return {"framework": "torchvision"} | section
    return section
