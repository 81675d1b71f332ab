"""The section ``data``: a generated data set, or one in COCO's format, Pascal VOC's or YOLO's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from autokd.config.section import Section, SizePx


class ShapesData(Section):
    """A generated data set of textured shapes on textured ground, written once as COCO files."""

    format: Literal["shapes"]
    """Generated images: six classes of shapes, 8 to 64 px, partly occluded, on textured ground."""
    image_size_px: SizePx = (96, 96)
    """Height and width of the images, in pixels."""
    num_train: PositiveInt = 600
    """Number of training images."""
    num_val: PositiveInt = 500
    """Number of validation images, on which candidates and the winner are selected."""
    num_test: PositiveInt = 500
    """Number of test images, on which results are reported."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the generator; equal seeds give bitwise equal images."""


class SplitFolders(Section):
    """A folder of images for each split, relative to the root of the set."""

    train: Path
    """Folder of the training images."""
    val: Path
    """Folder of the validation images."""
    test: Path | None = None
    """Folder of the test images; needed if the set has a test file."""


def _tag_of_folders(value: object) -> str:
    """Return which form of ``images`` a value has: without it, a problem with one would be told of both."""
    return "folders" if isinstance(value, (dict, SplitFolders)) else "folder"


ImageFolders = Annotated[
    Annotated[Path, Tag("folder")] | Annotated[SplitFolders, Tag("folders")], Discriminator(_tag_of_folders)
]


class CocoData(Section):
    """A detection data set in COCO's format."""

    written_if_set: ClassVar[frozenset[str]] = frozenset({"orientations", "unlabeled", "unlabeled_ratio"})

    format: Literal["coco"] = "coco"
    """COCO's annotation format. The key may be left out."""
    root: Path
    """Folder of the data set. If it has a layout that [data.md](data.md) lists, no other key is needed."""
    images: ImageFolders = Path("images")
    """Folder of the images, relative to ``root``; or one a split, ``{train: train2017, val: val2017}``. Left out: the
    folder ``images``, or those that the layout has."""
    train: Path
    """Annotation file of the training images, relative to ``root``; left out: that of the layout."""
    val: Path
    """Annotation file of the validation images, relative to ``root``. Candidates and the winner are chosen on them."""
    test: Path | None = None
    """Annotation file of the test images, relative to ``root``, on which results are reported. null: results are
    reported on the validation images, with a note."""
    image_size_px: SizePx = (480, 640)
    """Height and width of the network's input, in pixels. Images are scaled into it with their aspect ratio kept, and
    padded at the right and the bottom."""
    orientations: Literal["one", "two", "auto"] = "one"
    """Frames of the network's input. one: ``image_size_px`` for all images. two: images that lie across it have the
    same frame turned, and batches hold images of one frame. auto: two if pictures then fill at least a tenth more."""
    unlabeled: Path | None = None
    """Folder of images without boxes, relative to ``root``. Trainings with a distiller see them by the terms that read
    no labels; the teacher runs on them beside the student. null: none."""
    unlabeled_ratio: PositiveFloat = 1.0
    """Images without boxes for each image with boxes of a step; each counts as much in the distillation loss. With
    ``unlabeled`` only."""

    @model_validator(mode="after")
    def _has_a_folder_for_the_test_images(self) -> CocoData:
        if self.test is not None and isinstance(self.images, SplitFolders) and self.images.test is None:
            raise ValueError("there is a test file, but images names no folder for it. Give images.test")
        return self


class VocData(Section):
    """A detection data set in Pascal VOC's format, converted into the cache."""

    written_if_set: ClassVar[frozenset[str]] = frozenset({"orientations", "unlabeled", "unlabeled_ratio"})

    format: Literal["voc"]
    """Pascal VOC: an XML file an image."""
    root: Path
    """Folder of the data set."""
    images: Path = Path("JPEGImages")
    """Folder of the images of all splits that are lists of names, relative to ``root``."""
    annotations: Path = Path("Annotations")
    """Folder of their XML files, relative to ``root``."""
    train: Path = Path("ImageSets/Main/train.txt")
    """The training images, relative to ``root``: a list of names, one a line; or a folder with images and XML files."""
    val: Path = Path("ImageSets/Main/val.txt")
    """The validation images, likewise. Candidates and the winner are chosen on them."""
    test: Path | None = None
    """The test images, likewise. null: results are reported on the validation images, with a note."""
    image_size_px: SizePx = (480, 640)
    """Height and width of the network's input, in pixels."""
    orientations: Literal["one", "two", "auto"] = "one"
    """Frames of the network's input, as for COCO's format."""
    unlabeled: Path | None = None
    """Folder of images without boxes, relative to ``root``, as for COCO's format."""
    unlabeled_ratio: PositiveFloat = 1.0
    """Images without boxes for each image with boxes of a step, as for COCO's format."""


class YoloData(Section):
    """A detection data set in YOLO's format, converted into the cache."""

    written_if_set: ClassVar[frozenset[str]] = frozenset({"orientations", "unlabeled", "unlabeled_ratio"})

    format: Literal["yolo"]
    """YOLO: a text file an image, and a ``data.yaml`` that names splits and classes."""
    root: Path
    """Folder of the data set."""
    file: Path = Path("data.yaml")
    """File with ``train``, ``val``, ``names``, and maybe ``test`` and ``path``, relative to ``root``."""
    image_size_px: SizePx = (480, 640)
    """Height and width of the network's input, in pixels."""
    orientations: Literal["one", "two", "auto"] = "one"
    """Frames of the network's input, as for COCO's format."""
    unlabeled: Path | None = None
    """Folder of images without boxes, relative to ``root``, as for COCO's format."""
    unlabeled_ratio: PositiveFloat = 1.0
    """Images without boxes for each image with boxes of a step, as for COCO's format."""


Data = Annotated[ShapesData | CocoData | VocData | YoloData, Field(discriminator="format")]
