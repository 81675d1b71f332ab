"""The sections ``teacher`` and ``student`` of each framework that comes with AutoKD, and what all of them have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from autokd.config.plain_options import PlainOptions
from autokd.config.recipes import TeacherRecipe
from autokd.config.section import Section


class DetectorSection(Section):
    """Base of the section of each framework; a subclass is joined by a row of ``autokd.config.frameworks``.

    A subclass declares ``framework`` as a ``Literal`` of its one name, and the fields ``checkpoint`` and ``train``.
    """

    framework: str
    """Library that builds the model."""

    if TYPE_CHECKING:
        # Declared by each subclass, so that they come last in resolved files and in the reference.
        checkpoint: Path | None
        train: TeacherRecipe | None

    has_recipe: ClassVar[bool] = False
    """Whether the files of a section say how it trains, which ``full.from_student_config`` takes."""
    can_share_trainings: ClassVar[bool] = False
    """Whether several processes can share a full training of such a student (``runtime.full_processes``)."""
    sharing_remedy: ClassVar[str] = "Set it to 1"
    """End of the error if they cannot: what the user does instead."""

    def absolute_paths(self) -> dict[str, Any]:
        """Return the fields beside ``checkpoint`` that name files, with paths made absolute."""
        return {}


class Backbone(Section):
    """A ResNet of basic blocks of a chosen depth and width, or an official one by name."""

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101"] | None = None
    """Name of an official torchvision ResNet, which replaces ``blocks`` and ``width``; null: a ResNet of these."""
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1, 1)
    """Number of residual blocks in each of the four stages."""
    width: PositiveInt = 16
    """Channels of the first stage, doubled by each further stage."""


class TorchvisionDetector(DetectorSection):
    """A torchvision detector over a feature pyramid."""

    framework: Literal["torchvision"] = "torchvision"
    """Library that builds the model."""
    architecture: Literal["fcos", "retinanet", "faster_rcnn"] = "fcos"
    """Detector on top of a feature pyramid."""
    backbone: Backbone = Backbone()
    """ResNet below the feature pyramid."""
    fpn_channels: PositiveInt = 64
    """Channels of each pyramid level and of the head."""
    head_convs: PositiveInt = 2
    """Number of convolutions in each branch of a dense head."""
    box_init: NonNegativeFloat = 0.0
    """Initial distance from a cell to each side of its box, in strides; fcos only. At 0, torchvision's default, a fast
    warm-up can push a side into the dead zone of the last ReLU for good; 1 prevents it."""
    checkpoint: Path | None = None
    """File of initial weights: a state dict, read with weights_only."""
    train: TeacherRecipe | None = None
    """Recipe by which the run trains this detector if it has no checkpoint; teachers only."""

    can_share_trainings: ClassVar[bool] = True

    @model_validator(mode="after")
    def _only_fcos_has_sides(self) -> TorchvisionDetector:
        if self.box_init and self.architecture != "fcos":
            raise ValueError(f"found box_init, which only fcos has; leave it out of a {self.architecture}")
        return self


class MmdetDetector(DetectorSection):
    """A detector of MMDetection 3.x: the user's own config, whose file is Python and runs as such."""

    framework: Literal["mmdet"]
    """Library that builds the model."""
    config: Annotated[str, Field(min_length=1)]
    """Path of a config, or its name in MMDetection's zoo (``retinanet_r50_fpn_1x_coco``). Its Python code is run."""
    options: PlainOptions = Field(default={})
    """Keys of the config that are overridden, by dotted name: ``{model.neck.out_channels: 64}``. Numbers, words and
    lists of them alone, in the place of such values; ``init_cfg`` and ``pretrained`` may be null."""
    checkpoint: Path | None = None
    """File of initial weights as mmengine saves them; it is read as data, and no code in it is run."""
    classes: tuple[str, ...] | None = None
    """Names of the checkpoint's classes in its order, if the checkpoint does not hold them."""
    new_head: bool = False
    """Whether a checkpoint of other classes is accepted; layers whose shape depends on the classes then have random
    initial weights."""
    train: TeacherRecipe | None = None
    """Recipe by which the run trains this detector if it has no checkpoint; teachers only."""

    has_recipe: ClassVar[bool] = True
    sharing_remedy: ClassVar[str] = "Set it to 1, and train a student of MMDetection by mmengine's own launcher"

    def absolute_paths(self) -> dict[str, Any]:
        """The config, if it is a file: any other text may be a name from MMDetection's zoo."""
        path = os.path.expanduser(self.config)
        return {"config": os.path.abspath(path)} if os.path.isfile(path) else {}
