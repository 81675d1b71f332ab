"""The section ``teacher`` of a backbone alone: a feature extractor that finds no objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, NonNegativeInt, model_validator

from autokd.config.detector_sections import DetectorSection
from autokd.config.plain_options import PlainOptions
from autokd.config.recipes import TeacherRecipe
from autokd.config.section import SizePx
from autokd.config.torchvision_section import BackboneName, is_weights_name


class BackboneTeacher(DetectorSection):
    """A backbone of transformers (DINOv2, DINOv3, Swin, ConvNeXt, ...) or of torchvision; teachers only."""

    framework: Literal["backbone"]
    """A feature extractor without a head: it teaches by its maps alone, and has no AP."""
    name: Annotated[str, Field(min_length=1)] | None = None
    """Name of a classifier of torchvision (``convnext_tiny``); or a folder that ``save_pretrained`` wrote or a name on
    the hub, of any model that transformers' ``AutoBackbone`` loads (``facebook/dinov2-small``), from safetensors files
    alone."""
    revision: str | None = None
    """Revision of a model on the hub; null: the newest."""
    config: PlainOptions = Field(default={})
    """Keys of a model's configuration that are overridden, by dotted name; of transformers."""
    weights: str | None = None
    """Weights of torchvision's backbone: by name, such as IMAGENET1K_V1 or DEFAULT, or a file, read as data."""
    stages: tuple[NonNegativeInt, ...] | None = None
    """Stages whose maps are taken, from 1 on, fine to coarse; of a vision transformer, its layers. null: the stages 2,
    3 and 4 of torchvision's (strides 8, 16 and 32), the model's own choice of transformers', which is the last one."""
    image_size_px: SizePx | None = None
    """Height and width to which images are resized for this teacher, in the ratio of ``data.image_size_px``. null: the
    data's size; for patches whose side is no power of two, the size at which its cells have a stride of 16 pixels of
    the data."""
    checkpoint: Path | None = None
    """As ``weights``, if it is a file."""
    train: TeacherRecipe | None = None
    """Not for backbones: without a head there is nothing to train by."""

    finds_objects: ClassVar[bool] = False

    @property
    def is_torchvisions(self) -> bool:
        """Whether torchvision has the backbone."""
        return self.name in get_args(BackboneName)

    @property
    def has_weights(self) -> bool:
        """Whether the section names weights; those of transformers come with the name."""
        return not self.is_torchvisions or self.weights is not None or self.checkpoint is not None

    @property
    def folder(self) -> Path | None:
        """Folder of a model of transformers; None if the name is one of the hub's or torchvision's."""
        if self.name is None or self.is_torchvisions:
            return None
        path = Path(os.path.expanduser(self.name))
        return path if path.is_dir() else None

    def absolute_paths(self) -> dict[str, Any]:
        """The folder of the model: any other text may be a name."""
        folder = self.folder
        return {} if folder is None else {"name": os.path.abspath(folder)}

    @model_validator(mode="before")
    @classmethod
    def _a_file_is_a_checkpoint(cls, found: Any) -> Any:
        weights = found.get("weights") if isinstance(found, dict) else None
        if not isinstance(weights, (str, Path)) or is_weights_name(str(weights)):
            return found
        if found.get("checkpoint") is not None:
            raise ValueError("found both weights and checkpoint, and each names the weights. Leave one out")
        return {key: value for key, value in found.items() if key != "weights"} | {"checkpoint": weights}

    @model_validator(mode="after")
    def _is_a_teacher_with_weights(self) -> BackboneTeacher:
        if self.name is None:
            raise ValueError(
                "found no name. Give torchvision's name of a backbone, such as convnext_tiny, or a folder or a name on "
                "the hub of a model that transformers' AutoBackbone loads"
            )
        if self.train is not None:
            raise ValueError("found train, but a backbone without a head has no loss to be trained by. Leave it out")
        if self.is_torchvisions and self.config:
            raise ValueError(f"found config, but {self.name} is torchvision's and has no such keys. Leave it out")
        if not self.is_torchvisions and (self.weights is not None or self.checkpoint is not None):
            raise ValueError(
                "found weights, but those of a model of transformers come with its name. Leave them out, and give the "
                "folder with its config.json and model.safetensors as 'name'"
            )
        if not self.has_weights:
            raise ValueError(
                f"found {self.name} without weights, which would teach random numbers. Give 'weights: IMAGENET1K_V1', "
                "or a file"
            )
        if self.stages is not None and (not self.stages or list(self.stages) != sorted(set(self.stages))):
            raise ValueError(
                f"found stages {list(self.stages)}. Give each stage once, fine to coarse, such as [2, 3, 4]"
            )
        return self
