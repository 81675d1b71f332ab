"""The section of a torchvision detector: one that AutoKD puts together, or one of torchvision's own builders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from autokd.config.detector_sections import DetectorSection
from autokd.config.recipes import TeacherRecipe
from autokd.config.section import Section

BackboneName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2", "mobilenet_v2", "mobilenet_v3_small",
    "mobilenet_v3_large", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large", "efficientnet_b0",
    "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6",
    "efficientnet_b7", "efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l", "swin_t", "swin_s", "swin_b",
    "swin_v2_t", "swin_v2_s", "swin_v2_b",
]  # fmt: skip
"""Classifiers of torchvision whose features have the strides 4, 8, 16 and 32."""
OwnArchitecture = Literal["fcos", "retinanet", "faster_rcnn"]
"""Detectors that AutoKD puts together for any backbone and size of images."""
Builder = Literal[
    "fcos_resnet50_fpn", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn",
]  # fmt: skip
"""Detectors as torchvision's builders make them."""
Architecture = Literal[OwnArchitecture, Builder]
BUILDERS: tuple[Builder, ...] = get_args(Builder)
_FIXED_BY_BUILDERS = ("fpn_channels", "head_convs", "box_init")
_FIXED_IN_BACKBONES = ("name", "blocks", "width")


def is_weights_name(weights: str) -> bool:
    """Return whether a text is a name of torchvision's, such as ``IMAGENET1K_V2``, and not the path of a file.

    Args:
        weights: value of a key ``weights``.
    """
    return re.fullmatch(r"[A-Z][A-Z0-9_]*", weights) is not None


class Backbone(Section):
    """A ResNet of basic blocks of a chosen depth and width, or an official backbone by name."""

    name: BackboneName | None = None
    """Name of a classifier of torchvision, whose features replace ``blocks`` and ``width``; null: a ResNet of these."""
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1, 1)
    """Number of residual blocks in each of the four stages."""
    width: Annotated[int, Field(gt=0, le=8192)] = 16
    """Channels of the first stage, doubled by each further stage."""
    weights: str | None = None
    """Pretrained weights of the backbone: torchvision's by name, such as IMAGENET1K_V1, IMAGENET1K_V2 or DEFAULT, or a
    file; null: random weights. Colors are then normalized as these weights ask."""
    norm: Literal["batch", "frozen", "group"] | None = None
    """Normalization of the backbone: batch norms; batch norms whose statistics and parameters are frozen; group norms.
    null: frozen with pretrained weights, as in torchvision, else batch."""
    trainable_stages: Annotated[int, Field(ge=0, le=5)] | None = None
    """Number of the backbone's parts that are trained, counted from the coarsest: four stages and the stem; 5: all of
    it, 0: nothing. null: 3 with pretrained weights, as in torchvision, else 5."""

    written_if_set: ClassVar[frozenset[str]] = frozenset({"weights", "norm", "trainable_stages"})

    @property
    def has_batch_norms(self) -> bool:
        """Whether the backbone is built with batch norms; ConvNeXt and Swin have layer norms."""
        return self.name is None or not self.name.startswith(("convnext", "swin"))

    @property
    def weights_file(self) -> Path | None:
        """Path of the weights if they are a file."""
        return None if self.weights is None or is_weights_name(self.weights) else Path(self.weights)

    @model_validator(mode="after")
    def _fit_the_name(self) -> Backbone:
        if self.norm is not None and not self.has_batch_norms:
            raise ValueError(f"found norm: {self.norm}, but {self.name} has layer norms, which stay. Leave 'norm' out")
        return self


class TorchvisionDetector(DetectorSection):
    """A torchvision detector over a feature pyramid."""

    framework: Literal["torchvision"] = "torchvision"
    """Library that builds the model."""
    architecture: Architecture = "fcos"
    """Detector on top of a feature pyramid: fcos, retinanet or faster_rcnn with the backbone, channels and
    convolutions below, or the name of one of torchvision's builders, which fixes these."""
    backbone: Backbone = Backbone()
    """Backbone below the feature pyramid."""
    fpn_channels: Annotated[int, Field(gt=0, le=8192)] = 64
    """Channels of each pyramid level and of the head."""
    head_convs: PositiveInt = 2
    """Number of convolutions in each branch of a dense head."""
    box_init: NonNegativeFloat = 0.0
    """Initial distance from a cell to each side of its box, in strides; fcos only. At 0, torchvision's default, a fast
    warm-up can push a side into the dead zone of the last ReLU for good; 1 prevents it."""
    weights: str | None = None
    """Pretrained weights of the whole detector: torchvision's by name, COCO_V1 or DEFAULT, for its builders; or a file,
    as ``checkpoint``."""
    weights_dir: Path | None = None
    """Folder in which torchvision's files are searched before they are downloaded; null: the environment variable
    AUTOKD_WEIGHTS_DIR, then torch's own folder."""
    classes: tuple[str, ...] | None = None
    """Names of the classes of ``weights`` or ``checkpoint`` in their order, with or without a background in front, if
    these are not COCO's 91."""
    new_head: bool = False
    """Whether layers whose shape depends on the classes start with random weights, and the others with those of
    ``weights`` or ``checkpoint``."""
    checkpoint: Path | None = None
    """File of initial weights: a state dict, read as data, so that no code in it is run."""
    train: TeacherRecipe | None = None
    """Recipe by which the run trains this detector, from its weights on if it has any; teachers only."""

    can_share_trainings: ClassVar[bool] = True
    written_if_set: ClassVar[frozenset[str]] = frozenset({"weights", "weights_dir", "classes", "new_head"})

    @property
    def is_builders(self) -> bool:
        """Whether torchvision's own builder makes the model."""
        return self.architecture in BUILDERS

    @property
    def has_weights(self) -> bool:
        """Whether the section names weights of the whole detector: its own, or those of a file."""
        return self.checkpoint is not None or self.weights is not None

    def absolute_paths(self) -> dict[str, Any]:
        """The backbone's weights and the folder of weights."""
        changed: dict[str, Any] = {}
        if self.backbone.weights_file is not None:
            weights = str(_absolute(self.backbone.weights_file))
            changed["backbone"] = self.backbone.model_copy(update={"weights": weights})
        if self.weights_dir is not None:
            changed["weights_dir"] = _absolute(self.weights_dir)
        return changed

    def weight_files(self) -> dict[tuple[str, ...], Path]:
        """The backbone's weights, if they are a file."""
        file = self.backbone.weights_file
        return {} if file is None else {("backbone", "weights"): file}

    def unwritten(self) -> set[str]:
        return super().unwritten() | (set(_FIXED_BY_BUILDERS) if self.is_builders else set())

    @model_validator(mode="before")
    @classmethod
    def _a_file_is_a_checkpoint(cls, found: Any) -> Any:
        weights = found.get("weights") if isinstance(found, dict) else None
        if not isinstance(weights, (str, Path)) or is_weights_name(str(weights)):
            return found
        if found.get("checkpoint") is not None:
            raise ValueError("found both weights and checkpoint, and each names the initial weights. Leave one out")
        return {key: value for key, value in found.items() if key != "weights"} | {"checkpoint": weights}

    @model_validator(mode="after")
    def _only_fcos_has_sides(self) -> TorchvisionDetector:
        if self.box_init and self.architecture != "fcos":
            raise ValueError(f"found box_init, which only fcos has; leave it out of a {self.architecture}")
        return self

    @model_validator(mode="after")
    def _builders_fix_their_structure(self) -> TorchvisionDetector:
        if self.is_builders:
            changed = [*_changed(self, _FIXED_BY_BUILDERS), *_changed(self.backbone, _FIXED_IN_BACKBONES, "backbone.")]
            if changed:
                raise ValueError(
                    f"found {', '.join(changed)}, which torchvision's {self.architecture} fixes. Leave it out, or "
                    f"choose the architecture {', '.join(get_args(OwnArchitecture))}"
                )
        return self

    @model_validator(mode="after")
    def _weights_belong_to_something(self) -> TorchvisionDetector:
        if self.weights is not None and self.checkpoint is not None:
            raise ValueError("found both weights and checkpoint, and each names the initial weights. Leave one out")
        if self.weights is not None and not self.is_builders:
            raise ValueError(
                f"found weights: {self.weights}, which are those of torchvision's own detectors. Choose one as the "
                f"architecture ({', '.join(BUILDERS)}), or start the backbone alone with 'backbone: {{name: ..., "
                "weights: IMAGENET1K_V1}'"
            )
        backbone = self.backbone
        if backbone.weights is None:
            return self
        if self.has_weights:
            raise ValueError("found weights of the detector, which include those of backbone.weights. Leave one out")
        if backbone.weights_file is None and backbone.name is None and not self.is_builders:
            raise ValueError(
                f"found backbone.weights: {backbone.weights} without backbone.name. Name the backbone of torchvision "
                "that they belong to, such as resnet50"
            )
        return self


def _changed(section: Section, names: Iterable[str], where: str = "") -> list[str]:
    """Return the fields that differ from their default, with their place."""
    fields = type(section).model_fields
    return [f"{where}{name}" for name in names if getattr(section, name) != fields[name].default]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(os.path.expandvars(path))))
