"""The sections ``teacher`` and ``student`` of Hugging Face transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from autokd.config.detector_sections import DetectorSection
from autokd.config.plain_options import PlainOptions
from autokd.config.recipes import TeacherRecipe

_DECIDED = {
    "num_labels": "follows from the data set's classes",
    "id2label": "follows from the data set's classes",
    "label2id": "follows from the data set's classes",
    "backbone": "names weights or code elsewhere",
    "use_pretrained_backbone": "loads weights from elsewhere",
    "auto_map": "names code",
    "dtype": "is float32, and mixed precision a matter of the training",
}
"""Keys of a model's configuration that no section sets, and why."""


class TransformersDetector(DetectorSection):
    """A detector of Hugging Face transformers: a folder, a name on the hub, or a configuration with random weights."""

    framework: Literal["transformers"]
    """Library that builds the model."""
    name: Annotated[str, Field(min_length=1)] | None = None
    """Folder that ``save_pretrained`` wrote, or the name of a model on the hub (``PekingU/rtdetr_v2_r18vd``). Its
    weights are read from safetensors files alone; no code of it is run. null: the model of ``config``, with random
    weights."""
    revision: str | None = None
    """Revision of a model on the hub: a branch, a tag or a commit; null: the newest."""
    config: PlainOptions = Field(default={})
    """Keys of the model's configuration that are overridden, by dotted name: ``{decoder_layers: 3,
    backbone_config.hidden_sizes: [64, 128, 256, 512]}``. Without ``name``, ``model_type`` is required: detr,
    conditional_detr, deformable_detr, rt_detr, rt_detr_v2, d_fine, deimv2, rf_detr, lw_detr, yolos or another for which
    transformers has an object detector."""
    classes: tuple[str, ...] | None = None
    """Names of the model's classes in its order, if its own configuration (``id2label``) does not hold them."""
    new_head: bool = False
    """Whether a model of other classes is accepted; layers whose shape depends on the classes then have random initial
    weights."""
    checkpoint: Path | None = None
    """File of initial weights: a state dict of the model, such as a ``student.pt``, read as data, so that no code in it
    is run."""
    train: TeacherRecipe | None = None
    """Recipe by which the run trains this detector, from its weights on if it has any; teachers only."""

    sharing_remedy: ClassVar[str] = "Set it to 1"
    written_if_set: ClassVar[frozenset[str]] = frozenset({"revision"})

    @property
    def has_weights(self) -> bool:
        """Whether the section names weights of the whole detector: a folder, a model on the hub, or a file."""
        return self.checkpoint is not None or self.name is not None

    @property
    def folder(self) -> Path | None:
        """Folder of the model; None if the name is one of the hub's."""
        if self.name is None:
            return None
        path = Path(os.path.expanduser(self.name))
        return path if path.is_dir() else None

    def absolute_paths(self) -> dict[str, Any]:
        """The folder of the model: any other text may be a name on the hub."""
        folder = self.folder
        return {} if folder is None else {"name": os.path.abspath(folder)}

    @model_validator(mode="after")
    def _names_a_model(self) -> TransformersDetector:
        if self.name is None and "model_type" not in self.config:
            raise ValueError(
                "found neither a name nor a model_type. Give 'name: FOLDER', a name on the hub, or 'config: "
                "{model_type: rt_detr_v2}' for random weights"
            )
        if self.name is not None and "model_type" in self.config:
            raise ValueError("found a name and a model_type, and the name says the type already. Leave one out")
        if self.new_head and self.name is None:
            raise ValueError("found new_head without a name, but random weights have a new head anyway. Leave it out")
        for key in self.config:
            if (last := key.split(".")[-1]) in _DECIDED:
                raise ValueError(f"config.{key}: {last!r} {_DECIDED[last]}. Leave it out")
        return self
