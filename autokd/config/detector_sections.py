"""The sections ``teacher`` and ``student`` of each framework that comes with AutoKD, and what all of them have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

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
    """An official torchvision ResNet; ``blocks`` and ``width`` are then fixed."""
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1, 1)
    """Residual blocks in each of the four stages."""
    width: PositiveInt = 16
    """Channels of the first stage; each further stage doubles them."""


class TorchvisionDetector(DetectorSection):
    """A torchvision detector over a feature pyramid."""

    framework: Literal["torchvision"] = "torchvision"
    """Library that builds the model."""
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

    can_share_trainings: ClassVar[bool] = True

    @model_validator(mode="after")
    def _only_fcos_has_sides(self) -> TorchvisionDetector:
        if self.box_start and self.architecture != "fcos":
            raise ValueError(f"box_start is for fcos, whose boxes are distances; leave it out of a {self.architecture}")
        return self


class MmdetDetector(DetectorSection):
    """A detector of MMDetection 3.x: the user's own config, whose file is Python and runs as such."""

    framework: Literal["mmdet"]
    """Library that builds the model."""
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

    has_recipe: ClassVar[bool] = True
    sharing_remedy: ClassVar[str] = "Set it to 1, and train a student of MMDetection by mmengine's own launcher"

    def absolute_paths(self) -> dict[str, Any]:
        """The config, if it is a file: any other text may be a name from MMDetection's zoo."""
        path = Path(self.config).expanduser()
        return {"config": os.path.abspath(path)} if path.is_file() else {}
