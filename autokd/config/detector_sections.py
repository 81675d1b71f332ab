"""The base of the sections ``teacher`` and ``student`` of each framework, and that of MMDetection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

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

    finds_objects: ClassVar[bool] = True
    """Whether the model detects: if not, it teaches by its maps alone, has no AP, and is no student."""
    has_recipe: ClassVar[bool] = False
    """Whether the files of a section say how it trains, which ``full.from_student_config`` takes."""
    can_share_trainings: ClassVar[bool] = False
    """Whether several processes can share a full training of such a student (``runtime.full_processes``)."""
    sharing_remedy: ClassVar[str] = "Set it to 1"
    """End of the error if they cannot: what the user does instead."""

    @property
    def has_weights(self) -> bool:
        """Whether the section names weights of the whole detector, so that it can teach without a training."""
        return self.checkpoint is not None

    def absolute_paths(self) -> dict[str, Any]:
        """Return the fields beside ``checkpoint`` that name files, with paths made absolute."""
        return {}

    def weight_files(self) -> dict[tuple[str, ...], Path]:
        """Return place within the section -> file of weights that must exist, ``checkpoint`` left out."""
        return {}


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
    """Recipe by which the run trains this detector, from its checkpoint on if it has one; teachers only."""

    has_recipe: ClassVar[bool] = True
    sharing_remedy: ClassVar[str] = "Set it to 1, and train a student of MMDetection by mmengine's own launcher"

    def absolute_paths(self) -> dict[str, Any]:
        """The config, if it is a file: any other text may be a name from MMDetection's zoo."""
        path = os.path.expanduser(self.config)
        return {"config": os.path.abspath(path)} if os.path.isfile(path) else {}
